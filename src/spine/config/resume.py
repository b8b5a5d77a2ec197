"""Checks whether a run can be resumed from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from spine.checkpoints.run_checkpoint import read_checkpoint
from spine.config.values import format_value
from spine.errors import InputError
from spine.option_types import Config

if TYPE_CHECKING:
    from torch import nn


def check_resume(path: str, config: Config, model: nn.Module) -> None:
    """Raises InputError if a checkpoint belongs to another task or network than the run to resume.

    Compares task, backbone and head, and names and shapes of the tensors. The number of outputs of
    the head may differ: it is compared once the data set is open. `model` may be on the meta
    device.
    """
    content = read_checkpoint(path)
    saved = content["config"]
    for place in ("task", "backbone", "head"):
        in_checkpoint, in_run = (node[place].get("_target_") for node in (saved, config))
        if in_checkpoint != in_run:
            raise InputError(
                f"'{path}' was trained with {place} {in_checkpoint}, this run has {in_run}. Resume with the parts of the checkpoint."
            )
    tensors = {key.removeprefix("model."): value for key, value in content["state_dict"].items() if key.startswith("model.")}
    own = model.state_dict()
    mismatches = [key for key in (*tensors, *own) if key not in tensors or key not in own]
    mismatches += [
        key for key, value in tensors.items() if key.startswith("backbone.") and key in own and value.shape != own[key].shape
    ]
    if mismatches:
        variants = [node["backbone"].get("variant") for node in (saved, config)]
        hint = f" Its backbone is the variant {variants[0]}, this run's {variants[1]}." if variants[0] != variants[1] else ""
        raise InputError(
            f"'{path}' is a checkpoint of another network: {len(mismatches)} tensors differ, such as '{mismatches[0]}'.{hint} "
            f"Resume with the configuration of the checkpoint."
        )


def changed_on_resume(saved: Config, new: Config) -> list[str]:
    """Returns the keys of optimizer and schedule that differ from a checkpoint, with both values.

    The states of optimizer and schedule are restored from the checkpoint, so that these keys have
    no effect on a resumed run.
    """
    before, now = (dict(_leaves({place: config.get(place) for place in ("optimizer", "schedule")})) for config in (saved, new))
    absent = object()
    return [
        f"{key} ({_value(before, key)} in the checkpoint, {_value(now, key)} now)"
        for key in sorted({*before, *now})
        if before.get(key, absent) != now.get(key, absent)
    ]


def _leaves(node: Config, path: str = "") -> Iterator[tuple[str, object]]:
    """Yields the dotted path and the value of every key that holds no dictionary."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _value(leaves: Config, key: str) -> str:
    return format_value(leaves[key]) if key in leaves else "not set"
