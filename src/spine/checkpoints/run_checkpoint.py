"""Checkpoints of runs: reads them safely, and translates the names of older versions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from spine.errors import InputError

RENAMED_TARGETS = (  # patterns of older names, for checkpoints that were written with them
    (r"spine\.datasets\.(coco_keypoints|fashion_mnist|image_folder|mask_folder|shapes)\.(\w+)", r"spine.data.formats.\1.\2"),
    (r"spine\.datasets\.transforms\.(\w+)", r"spine.data.transforms.\1"),
    (r"spine\.tasks\.(cls|seg|pose|mae)\.(\w+)", r"spine.tasks.\1.task.\2"),
    (r"spine\.optim\.(adamw|sgd)", r"spine.training.optimizers.\1"),
    (r"spine\.optim\.(cosine|poly|constant)", r"spine.training.schedules.\1"),
    (r"spine\.loggers\.(tensorboard|wandb)", r"spine.training.loggers.\1.\1"),
)
RENAMED_KEYS = {"figure_every_n_epochs": "figure_every_n_epochs"}


def upgraded(node: object) -> object:
    """A configuration of an older checkpoint with today's keys and targets."""
    if isinstance(node, dict):
        return {
            RENAMED_KEYS.get(key, key): _upgraded_target(value) if key == "_target_" else upgraded(value)
            for key, value in node.items()
        }
    return [upgraded(item) for item in node] if isinstance(node, list) else node


def _upgraded_target(target: object) -> object:
    for pattern, new in RENAMED_TARGETS:
        if isinstance(target, str) and re.fullmatch(pattern, target):
            return re.sub(pattern, new, target)
    return target


def read_checkpoint(path: str) -> dict[str, Any]:
    """What a checkpoint of spine holds: `state_dict`, `config` and Lightning's states, read without running anything in it.

    InputError where the file is missing, cut short, or not one of spine.
    """
    import torch  # commands import this module before they have checked their arguments

    if not Path(path).is_file():
        raise InputError(f"There is no checkpoint '{path}'. Give ckpt_path=logs/.../checkpoints/last.ckpt.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises a dozen kinds for files that are cut short, no zip files, or hold objects
        raise InputError(f"'{path}' is not a checkpoint of spine, or it is cut short. Nothing in it was run.") from error
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict) or "state_dict" not in content:
        raise InputError(f"'{path}' is not a checkpoint of spine: it holds no configuration. Nothing in it was run.")
    return upgrade_checkpoint(content)


def upgrade_checkpoint(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint with today's names: of tensors, and in its configuration."""
    tensors = {key.replace("model.painted_pixel", "model.mask_pixel"): value for key, value in content["state_dict"].items()}
    configs = {key: upgraded(content[key]) for key in ("config", "config_source") if key in content}
    return {**content, **configs, "state_dict": tensors}
