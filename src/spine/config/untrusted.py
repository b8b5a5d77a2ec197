"""Removes from the configuration of a checkpoint what could run code."""

from __future__ import annotations

from spine.config import schemas
from spine.config.places import check_targets
from spine.config.schemas import Config
from spine.config.source import calls_resolver
from spine.config.values import check_keys
from spine.errors import InputError


def strip_untrusted(config: Config) -> Config:
    """The configuration of a checkpoint without callbacks, loggers, plug-ins, and weights to download.

    A checkpoint may come from anyone. Raises InputError if its configuration has other keys than those of a run (such as `hydra`, from
    which Hydra would build objects), names parts that are not allowed, or uses a resolver (such as `${oc.env:...}`).
    """
    if not isinstance(config, dict):
        raise InputError("The checkpoint's configuration is not a dictionary; nothing in it was run.")
    sections = (*schemas.SECTIONS, *schemas.OPTIONAL_SECTIONS)
    check_keys(config, {**schemas.TOP, **dict.fromkeys(sections)}, "")
    kept = {**config, "logger": {}, "plugins": None}
    if isinstance(kept.get("callbacks"), dict):
        kept["callbacks"] = {**kept["callbacks"], "more": {}}
    if isinstance(kept.get("backbone"), dict):
        kept["backbone"] = {**kept["backbone"], "weights": None}
    _check_interpolations(kept, "")
    check_targets(kept)
    return kept


def _check_interpolations(node: object, path: str) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            _check_interpolations(key, path)
            _check_interpolations(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            _check_interpolations(value, f"{path}[{i}]")
    elif isinstance(node, str) and calls_resolver(node):
        raise InputError(f"{path} of the checkpoint's configuration is '{node}'; it may refer to other keys only.")
