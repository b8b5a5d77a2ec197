"""Imports and calls what a configuration names in `_target_`."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from typing import Any

from spine import plugins
from spine.components import check_arguments
from spine.config.places import COMPOSITES, NAME, PLACES, Place, check_children, check_target, is_composite
from spine.config.schemas import PARTS, Config
from spine.config.values import check_options, check_schema
from spine.errors import InputError, nearest
from spine.option_types import SWITCH, Allowed, Fraction, NotNegative, Positive, Schema

COMPOSITE_OPTIONS: Schema = {  # albumentations checks the values of its other transforms itself
    "p": Allowed(Fraction, "a probability, 0 to 1"),
    "n": Allowed(Positive, "a whole number of transforms, 1 or more"),
    "replace": SWITCH,
}


def target_of(path: str, node: Config) -> Any:
    """The class or function that the `_target_` of the node at `path` names.

    Raises InputError if it does not exist, or if it is not a public class or function of the kind that belongs there, defined in the
    module that was named.
    """
    place = check_target(node.get("_target_"), path)
    module_name, _, name = node["_target_"].rpartition(".")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise its import asks the network for a newer version
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and not module_name.startswith(error.name):
            raise InputError(f"{module_name} cannot be imported: it needs the package '{error.name}'. Install it.") from error
        raise InputError(f"{path}._target_='{node['_target_']}' does not exist: it may name {place.description}.") from error
    target = getattr(module, name, None)
    if target is None:
        hint = nearest(name, [own for own in dir(module) if re.fullmatch(NAME, own)], f"{module_name}.")
        raise InputError(f"{path}._target_='{node['_target_']}' does not exist.{hint} It may name {place.description}.")
    if not _is_allowed(place, target, module_name, name):
        raise InputError(f"{path}._target_='{node['_target_']}' is not allowed: it may name {place.description}.")
    return target


def _is_allowed(place: Place, target: object, module: str, name: str) -> bool:
    """Whether an imported object is of the place's kind, and defined where it was named, or re-exported by its own package."""
    if getattr(target, "__module__", None) != module and not _reexported(target, module):
        return False
    if getattr(target, "__name__", None) != name:
        return False
    if place is PLACES["augment"]:
        return inspect.isclass(target) and _is_transform(target)
    if not place.base:
        return inspect.isfunction(target)
    base_module, _, base_name = place.base.rpartition(".")
    base = getattr(importlib.import_module(base_module), base_name)
    return inspect.isclass(target) and issubclass(target, base) and target is not base


def _reexported(target: object, package: str) -> bool:
    """Whether a package exposes in its `__init__` what one of its own modules defines."""
    home = str(getattr(target, "__module__", ""))
    if package == "albumentations":
        return home.startswith(("albumentations.augmentations.", "albumentations.core.composition"))
    own = (f"{name}.data.transforms" for name in plugins.packages())
    packages = ("albumentations.augmentations", "pytorch_lightning.callbacks", *own)
    return package.startswith(packages) and home.startswith(f"{package}.")


def _is_transform(target: type) -> bool:
    if target.__module__.partition(".")[0] in plugins.packages():
        from spine.interfaces import SampleTransform

        return issubclass(target, SampleTransform) and not inspect.isabstract(target)
    from albumentations.core.composition import BaseCompose
    from albumentations.core.transforms_interface import BasicTransform, Transform3D

    if issubclass(target, BaseCompose):
        return target.__name__ in COMPOSITES
    return issubclass(target, BasicTransform) and not issubclass(target, Transform3D)  # volumes do not occur here


def instantiate(path: str, node: Config, *arguments: object, **more: object) -> Any:
    """Calls what the `_target_` of the node at `path` names with `arguments`, the node's other keys and `more`.

    The transforms in a composite of albumentations (OneOf, SomeOf, ...) and the loss of a task are nodes themselves and are
    built first. Raises InputError if a target is not allowed at its path, or does not take the keys or values.
    """
    target = target_of(path, node)
    own = {key: value for key, value in node.items() if key != "_target_"}
    ours = node["_target_"].partition(".")[0] in plugins.packages()
    open_ended = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(target).parameters.values())
    options = {key: value for key, value in own.items() if key != "loss"}  # which Task takes, and is a node itself
    schema = PARTS.get(path.partition(".")[0], {}).get(node["_target_"])
    if schema is not None:
        check_schema(options, schema, path)
    elif ours or not open_ended:
        check_arguments(target, options, path)
    if is_composite(node["_target_"]):
        check_children(node, path)
        check_schema({key: value for key, value in own.items() if key != "transforms"}, COMPOSITE_OPTIONS, path)
    elif schema is None and not node["_target_"].startswith("albumentations."):  # which checks values itself
        check_options(target, {key: value for key, value in options.items() if key != "transforms"}, path)
    own |= _built_children(path, own)
    try:
        return target(*arguments, **own, **more)
    except InputError:
        raise
    except Exception as error:  # whatever a constructor of another package raises for a user's values
        if ours and not path.startswith("augment"):
            raise
        raise InputError(f"{path}: {target.__name__} does not take these values ({_first_finding(error)}).") from error


def _built_children(path: str, own: Config) -> Config:
    loss = own.get("loss")
    if isinstance(loss, dict):
        return {"loss": instantiate(f"{path}.loss", loss)}
    if isinstance(loss, list):
        return {"loss": _weighted_loss(f"{path}.loss", loss)}
    children = own.get("transforms")
    if isinstance(children, list) and path.startswith("augment"):
        return {"transforms": [instantiate(f"{path}.transforms[{i}]", child) for i, child in enumerate(children)]}
    return {}


def _weighted_loss(path: str, nodes: list[Config]) -> Any:
    """The sum of several losses. The key `weight` of a node is the factor of its loss."""
    from spine.layers.weighted_loss import WeightedLoss  # imports torch

    weights = [node.get("weight", 1.0) for node in nodes]
    for i, weight in enumerate(weights):
        check_schema({"weight": weight}, {"weight": Allowed(NotNegative, "a factor, 0 or more")}, f"{path}[{i}]")
    losses = [
        instantiate(f"{path}[{i}]", {key: value for key, value in node.items() if key != "weight"})
        for i, node in enumerate(nodes)
    ]
    return WeightedLoss(losses, weights)


def _first_finding(error: Exception) -> str:
    """The first finding of an error of pydantic or Lightning, in one line."""
    from pydantic import ValidationError

    link = error if isinstance(error, ValidationError) else error.__cause__  # albumentations wraps it in a ValueError
    if isinstance(link, ValidationError):
        found = link.errors()[0]
        where = ".".join(map(str, found["loc"]))
        return f"{where}: {found['msg']}" if where else found["msg"]
    return " ".join(str(error).split())
