"""Whether a checkpoint is one of the run that is to go on from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spine.config.values import shown
from spine.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def read_checkpoint(path: str) -> dict[str, Any]:
    """What a checkpoint of spine holds: `state_dict`, `config` and Lightning's states, read without running anything in it.

    InputError where the file is missing, cut short, or not one of spine.
    """
    import torch

    if not Path(path).is_file():
        raise InputError(f"There is no checkpoint '{path}'. Give ckpt_path=logs/.../checkpoints/last.ckpt.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises a dozen kinds for files that are cut short, no zip files, or hold objects
        raise InputError(f"'{path}' is not a checkpoint of spine, or it is cut short. Nothing in it was run.") from error
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict) or "state_dict" not in content:
        raise InputError(f"'{path}' is not a checkpoint of spine: it holds no configuration. Nothing in it was run.")
    return content


def check_resume(path: str, config: dict[str, Any], model: nn.Module) -> None:
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


def changed_on_resume(saved: dict[str, Any], new: dict[str, Any]) -> list[str]:
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


def _leaves(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _value(leaves: dict[str, Any], key: str) -> str:
    return shown(leaves[key]) if key in leaves else "not set"
