"""Which classes and functions a configuration may name in `_target_`, and how they are called."""

from __future__ import annotations

import importlib
from typing import Any

from spine.errors import InputError

ALLOWED_TARGETS = (
    "spine.backbones.", "spine.heads.", "spine.tasks.", "spine.datasets.", "spine.optim.", "spine.callbacks.", "spine.loggers.",
    "albumentations.", "pytorch_lightning.callbacks.", "pytorch_lightning.strategies.",
)  # fmt: skip


def check_targets(node: Any, path: str = "") -> None:
    """InputError where a `_target_` is not one of ours: a configuration must not be able to run what it likes."""
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None and not (isinstance(target, str) and target.startswith(ALLOWED_TARGETS)):
            raise InputError(
                f"{path.lstrip('.')}._target_='{target}' is not allowed: a configuration may name parts of "
                f"{', '.join(prefix.rstrip('.') for prefix in ALLOWED_TARGETS)} only."
            )
        for key, value in node.items():
            check_targets(value, f"{path}.{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check_targets(value, f"{path}[{i}]")


def target_of(node: dict[str, Any]) -> Any:
    """The class or function that a part's `_target_` names."""
    module, _, name = node["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def named(node: dict[str, Any]) -> str:
    """The name of a part: the file that its `_target_` lies in."""
    return node["_target_"].split(".")[2]


def instantiate(part: str, node: dict[str, Any], *arguments: Any, **more: Any) -> Any:
    """Calls what an allowed `_target_` names with `arguments`, the node's other keys and `more`; our own parts' keys are checked.

    `part` is the node's place in the configuration, for the message about a key that the target does not take.
    """
    from spine.model import check_arguments

    target = target_of(node)
    own = {key: value for key, value in node.items() if key != "_target_"}
    if node["_target_"].startswith("spine."):
        check_arguments(target, own, part)
    return target(*arguments, **own, **more)
