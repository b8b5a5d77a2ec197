"""Which classes and functions a configuration may name in `_target_`, and how they are called.

Every place of a configuration takes one kind of part. A name is compared with what its place allows before anything is imported,
since importing runs code; once it is imported, it must be a public class or function of that kind, defined where it was named.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spine
from spine.config import schemas
from spine.config.values import check_keys, check_options
from spine.errors import InputError, nearest

NAME = r"[A-Za-z][A-Za-z0-9_]*"  # no leading underscore: private names are no parts
# Albumentations' transforms that a configuration cannot use, and why.
REFUSED_TRANSFORMS = {
    "Lambda": "it calls functions, which a configuration cannot hold",
    "TextImage": "it opens a font file by its path",
    "FDA": "it reads other images by a function",
    "HistogramMatching": "it reads other images by a function",
    "PixelDistributionAdaptation": "it reads other images by a function",
    "TemplateTransform": "it reads other images",
    "Mosaic": "it needs further images in each sample",
    "OverlayElements": "it needs further images in each sample",
}
REFUSED_CALLBACKS = {
    "LambdaCallback": "it calls functions, which a configuration cannot hold",
    "OnExceptionCheckpoint": "with it, Lightning resumes from any earlier checkpoint in its folder without being asked",
}


@dataclass(frozen=True)
class Place:
    """What a `_target_` at one place of a configuration may name."""

    words: str  # for messages
    accepts: Callable[[str], bool]  # by the name alone
    base: str = ""  # the class that parts are subclasses of; none where they are functions


def _listed(package: str) -> list[str]:
    """Modules of a package of spine, by listing its folder: nothing is imported."""
    return [info.name for info in pkgutil.iter_modules([str(Path(spine.__file__).parent / package)]) if not info.ispkg]


def _backbone(target: str) -> bool:
    return target in {f"spine.backbones.{name}.{name}" for name in _listed("backbones")}


def _class_in(package: str) -> Callable[[str], bool]:
    def accepts(target: str) -> bool:
        module, _, name = target.rpartition(".")
        return module in {f"spine.{package}.{file}" for file in _listed(package)} and re.fullmatch(NAME, name) is not None

    return accepts


def _augmentation(target: str) -> bool:
    own = rf"spine\.datasets\.transforms(\.{NAME})?\.{NAME}"
    theirs = rf"albumentations(\.augmentations(\.{NAME})+)?\.{NAME}"
    return re.fullmatch(f"{own}|{theirs}", target) is not None and target.rpartition(".")[2] not in REFUSED_TRANSFORMS


def _callback(target: str) -> bool:
    pattern = rf"pytorch_lightning\.callbacks(\.{NAME})?\.{NAME}|spine\.(callbacks|training\.{NAME})\.{NAME}"
    return re.fullmatch(pattern, target) is not None and target.rpartition(".")[2] not in REFUSED_CALLBACKS


def _of_schema(place: str, what: str, base: str = "") -> Place:
    targets = schemas.PARTS[place]
    return Place(f"{what}: {', '.join(targets)}", targets.__contains__, base)


PLACES = {
    "backbone": Place("the builder of a backbone, such as spine.backbones.vit.vit", _backbone),
    "head": Place("a head, such as spine.heads.linear.Linear", _class_in("heads"), "spine.interfaces.Head"),
    "dataset": Place(
        "a data set, such as spine.datasets.image_folder.ImageFolder", _class_in("datasets"), "spine.interfaces.DataSet"
    ),
    "task": _of_schema("task", "a task", "spine.tasks.base.Task"),
    "optimizer": _of_schema("optimizer", "an optimizer"),
    "schedule": _of_schema("schedule", "a schedule"),
    "logger": _of_schema("logger", "a logger"),
    "augment": Place(
        "a transform of spine.datasets.transforms or of albumentations that needs plain values only, "
        "such as albumentations.HorizontalFlip",
        _augmentation,
    ),
    "callbacks.more": Place(
        "a callback of pytorch_lightning.callbacks or of spine that needs plain values only, "
        "such as pytorch_lightning.callbacks.EarlyStopping",
        _callback,
        "pytorch_lightning.Callback",
    ),
}
PATHS = {  # where a `_target_` may stand
    r"backbone|head|dataset|task|optimizer|schedule": None,
    rf"logger\.{NAME}": "logger",
    r"augment\.(train|eval)\[\d+\]": "augment",
    rf"callbacks\.more\.{NAME}": "callbacks.more",
}


def place_of(path: str) -> Place | None:
    """The place of a node by its path, such as `augment.train[0]`; None where no part belongs."""
    for pattern, name in PATHS.items():
        if re.fullmatch(pattern, path):
            return PLACES[name or path]
    return None


def check_targets(config: dict[str, Any]) -> None:
    """InputError where a `_target_` is not one that its place allows, or where a place has none. Imports nothing."""
    _check_targets(config, "")
    for place, path, node in _nodes(config):
        if not _is_interpolation(node) and not (isinstance(node, dict) and "_target_" in node):
            raise InputError(f"{path} has no _target_; it should name {PLACES[place].words}.")


def _nodes(config: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Place, path and node of every part of a configuration. Interpolations are passed over: they are checked once resolved."""
    for name in PLACES:
        if isinstance(config.get(name), dict) and name not in ("augment", "logger"):
            yield name, name, config[name]
    for path, step in augmentations(config):
        yield "augment", path, step
    more = (config.get("callbacks") or {}).get("more") or {}
    for place, nodes in (("callbacks.more", more), ("logger", config.get("logger") or {})):
        if not isinstance(nodes, dict):
            raise InputError(f"{place} is {nodes!r}; it holds named nodes, each with its _target_.")
        for name, node in nodes.items():
            yield place, f"{place}.{name}", node


def augmentations(config: dict[str, Any]) -> list[tuple[str, Any]]:
    """Path and node of every step of augment.train and augment.eval."""
    augment = config.get("augment") or {}
    if not isinstance(augment, dict) or not augment.keys() <= {"train", "eval"}:
        raise InputError("augment holds two lists of transforms, augment.train and augment.eval.")
    steps = []
    for mode, listed in augment.items():
        if isinstance(listed, list):
            steps += [(f"augment.{mode}[{i}]", step) for i, step in enumerate(listed)]
        elif not _is_interpolation(listed):
            raise InputError(f"augment.{mode} is {listed!r}; it is a list of transforms, each with its _target_.")
    return steps


def _is_interpolation(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("${")


def _check_targets(node: Any, path: str) -> None:
    if isinstance(node, dict):
        if "_target_" in node:
            check_target(node["_target_"], path)
        for key, value in node.items():
            _check_targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            _check_targets(value, f"{path}[{i}]")


def check_target(target: Any, path: str) -> Place:
    """The place of a node, which must allow its `_target_`. Imports nothing."""
    place = place_of(path)
    if place is None:
        raise InputError(f"{path or 'The configuration'} cannot have a _target_ ('{target}'): no part is built there.")
    if isinstance(target, str) and place.accepts(target):
        return place
    reasons = {"augment": REFUSED_TRANSFORMS, "callbacks.more": REFUSED_CALLBACKS}
    known = next((table for name, table in reasons.items() if place is PLACES[name]), {})
    reason = known.get(str(target).rpartition(".")[2])
    because = f" ({reason})" if reason else ""
    raise InputError(f"{path}._target_='{target}' is not allowed{because}: it may name {place.words}.")


def target_of(path: str, node: dict[str, Any]) -> Any:
    """The class or function that the `_target_` of the node at `path` names. InputError where it is not one that belongs there."""
    place = check_target(node.get("_target_"), path)
    module_name, _, name = node["_target_"].rpartition(".")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for a newer version
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(f"{path}._target_='{node['_target_']}' does not exist: it may name {place.words}.") from error
    target = getattr(module, name, None)
    if target is None:
        hint = nearest(name, [own for own in dir(module) if re.fullmatch(NAME, own)], f"{module_name}.")
        raise InputError(f"{path}._target_='{node['_target_']}' does not exist.{hint} It may name {place.words}.")
    if not _is_of(place, target, module_name, name):
        raise InputError(f"{path}._target_='{node['_target_']}' is not allowed: it may name {place.words}.")
    return target


def _is_of(place: Place, target: Any, module: str, name: str) -> bool:
    """Whether what was imported is of the place's kind, and defined where it was named (packages name what their files define)."""
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


def _reexported(target: Any, package: str) -> bool:
    """Whether a package names in its `__init__` what one of its own files defines."""
    home = "albumentations.augmentations" if package == "albumentations" else package
    packages = ("albumentations.augmentations", "pytorch_lightning.callbacks", "spine.datasets.transforms")
    return home.startswith(packages) and str(getattr(target, "__module__", "")).startswith(f"{home}.")


def _is_transform(target: type) -> bool:
    if target.__module__.startswith("spine."):
        return "__call__" in vars(target) and target.__name__ not in ("Transform", "Albumentations")
    from albumentations.core.transforms_interface import BasicTransform, Transform3D

    return issubclass(target, BasicTransform) and not issubclass(target, Transform3D)  # which would find no volume and do nothing


def strip_untrusted(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a checkpoint without what runs beside the network: callbacks, loggers, and weights to fetch.

    A checkpoint may come from anyone. InputError where its configuration has other keys than those of a run (such as `hydra`, from
    which Hydra would build objects), names parts that are not allowed, or asks a resolver (such as `${oc.env:...}`).
    """
    if not isinstance(config, dict):
        raise InputError("The checkpoint's configuration is not a dictionary; nothing in it was run.")
    sections = (*schemas.SECTIONS, *schemas.OPTIONAL_SECTIONS)
    check_keys(config, {**schemas.TOP, **dict.fromkeys(sections)}, "")
    kept = {**config, "logger": {}}
    if isinstance(kept.get("callbacks"), dict):
        kept["callbacks"] = {**kept["callbacks"], "more": {}}
    if isinstance(kept.get("backbone"), dict):
        kept["backbone"] = {**kept["backbone"], "weights": None}
    _check_interpolations(kept, "")
    check_targets(kept)
    return kept


def _check_interpolations(node: Any, path: str) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            _check_interpolations(key, path)
            _check_interpolations(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            _check_interpolations(value, f"{path}[{i}]")
    elif isinstance(node, str) and re.search(r"\$\{[^}]*[:$]", node):
        raise InputError(f"{path} of the checkpoint's configuration is '{node}'; it may refer to other keys only.")


def named(node: dict[str, Any]) -> str:
    """The name of a part: the file that its `_target_` lies in."""
    return node["_target_"].split(".")[2]


def instantiate(path: str, node: dict[str, Any], *arguments: Any, **more: Any) -> Any:
    """Calls what the `_target_` of the node at `path` names with `arguments`, the node's other keys and `more`.

    InputError where the target is not allowed at `path`, or does not take these keys or values.
    """
    from spine.model import check_arguments

    target = target_of(path, node)
    own = {key: value for key, value in node.items() if key != "_target_"}
    parameters = inspect.signature(target).parameters.values()
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    ours = node["_target_"].startswith("spine.")
    if ours or not open_ended:
        check_arguments(target, own, path)
    if not node["_target_"].startswith("albumentations."):  # which checks values itself
        check_options(target, own, path)
    try:
        return target(*arguments, **own, **more)
    except InputError:
        raise
    except Exception as error:  # whatever a constructor of another package makes of a user's values
        if ours and not path.startswith("augment"):
            raise
        raise InputError(f"{path}: {target.__name__} does not take these values ({_first(error)}).") from error


def _first(error: Exception) -> str:
    """The first finding of an error of pydantic or Lightning, in one line."""
    from pydantic import ValidationError

    link = error if isinstance(error, ValidationError) else error.__cause__  # albumentations wraps it in a ValueError
    if isinstance(link, ValidationError):
        found = link.errors()[0]
        where = ".".join(map(str, found["loc"]))
        return f"{where}: {found['msg']}" if where else found["msg"]
    return " ".join(str(error).split())
