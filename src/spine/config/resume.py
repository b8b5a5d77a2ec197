"""Whether a checkpoint is one of the run that is to go on from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from spine.checkpoints.run_checkpoint import read_checkpoint
from spine.config.schemas import Config
from spine.config.values import format_value
from spine.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def check_resume(path: str, config: Config, model: nn.Module) -> None:
    """InputError where the tensors of a checkpoint are not those of the network that is to go on from it.

    The head may differ in the number of outputs, which the data set decides; that is compared once the data is open.
    `model` may be on the meta device.
    """
    content = read_checkpoint(path)
    saved = content["config"]
    for place in ("task", "backbone", "head"):
        theirs, ours = (node[place].get("_target_") for node in (saved, config))
        if theirs != ours:
            raise InputError(
                f"'{path}' was trained with {place} {theirs}, this run has {ours}. Resume with the parts of the checkpoint."
            )
    tensors = {key.removeprefix("model."): value for key, value in content["state_dict"].items() if key.startswith("model.")}
    own = model.state_dict()
    odd = [key for key in (*tensors, *own) if key not in tensors or key not in own]
    odd += [key for key, value in tensors.items() if key.startswith("backbone.") and key in own and value.shape != own[key].shape]
    if odd:
        variants = [node["backbone"].get("variant") for node in (saved, config)]
        differ = f" Its backbone is the variant {variants[0]}, this run's {variants[1]}." if variants[0] != variants[1] else ""
        raise InputError(
            f"'{path}' is of another network: {len(odd)} tensors differ, such as '{odd[0]}'.{differ} "
            f"Resume with the configuration of the checkpoint."
        )


def changed_on_resume(saved: Config, new: Config) -> list[str]:
    """Keys of optimizer and schedule in which a run differs from the checkpoint it goes on from, each with both values.

    The states of optimizer and schedule come from the checkpoint, so that these keys have no effect on a resumed run.
    """
    before, now = (dict(_leaves({place: config.get(place) for place in ("optimizer", "schedule")})) for config in (saved, new))
    absent = object()
    return [
        f"{key} ({_value(before, key)} in the checkpoint, {_value(now, key)} now)"
        for key in sorted({*before, *now})
        if before.get(key, absent) != now.get(key, absent)
    ]


def _leaves(node: Config, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _value(leaves: Config, key: str) -> str:
    return format_value(leaves[key]) if key in leaves else "not set"
