"""Checkpoints of runs: reads them safely, and translates the names of older versions."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

from spine.errors import InputError

Checkpoint = dict[str, Any]  # `state_dict`, `config`, `config_source`, and the states of Lightning

TRAINED_WEIGHTS = (
    "current_model_state"  # weights of the optimizer in a checkpoint whose `state_dict` is their moving average (EMA)
)
TOKENIZER_COPY = "tokenizer.safetensors"  # in a run folder

RENAMED_TARGETS = (  # patterns of `_target_` in older checkpoints, and today's names
    (r"spine\.datasets\.(coco_keypoints|fashion_mnist|image_folder|mask_folder|shapes)\.(\w+)", r"spine.data.formats.\1.\2"),
    (r"spine\.datasets\.transforms\.(\w+)", r"spine.data.transforms.\1"),
    (r"spine\.tasks\.(cls|seg|pose|mae)\.(\w+)", r"spine.tasks.\1.task.\2"),
    (r"spine\.optim\.(adamw|sgd)", r"spine.training.optimizers.\1"),
    (r"spine\.optim\.(cosine|poly|constant)", r"spine.training.schedules.\1"),
    (r"spine\.loggers\.(tensorboard|wandb)", r"spine.training.loggers.\1.\1"),
)
RENAMED_KEYS = {"picture_every_n_epochs": "figure_every_n_epochs"}
RENAMED_TENSORS = {"model.painted_pixel": "model.mask_pixel"}


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Returns the content of a checkpoint of spine, with today's names. Nothing in the file is executed.

    Raises InputError if the file is missing, truncated, or not a checkpoint of spine.
    """
    import torch  # commands import this module before they have checked their arguments

    if not Path(path).is_file():
        raise InputError(f"There is no checkpoint '{path}'. Give ckpt_path=logs/.../checkpoints/last.ckpt.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many types for files that are truncated, not zip archives, or hold objects
        raise InputError(f"'{path}' is not a checkpoint of spine, or it is cut short. Nothing in it was executed.") from error
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict) or "state_dict" not in content:
        raise InputError(f"'{path}' is not a checkpoint of spine: it holds no configuration. Nothing in it was executed.")
    return upgrade_checkpoint(content)


def has_averaged_weights(content: Checkpoint) -> bool:
    """Returns whether the `state_dict` of a checkpoint is the moving average of the weights (EMA)."""
    return TRAINED_WEIGHTS in content


def tokenizer_of_run(config: Checkpoint, run_folder: Path) -> str | None:
    """Returns the path of the tokenizer of a run: the copy in its folder, else the file that its configuration names.

    With the copy, a run does not depend on the original file, which may be moved or replaced. None for a run without a tokenizer.
    """
    copy = run_folder / TOKENIZER_COPY
    return str(copy) if config.get("tokenizer") is not None and copy.is_file() else config.get("tokenizer")


def verify_checkpoint(path: str | Path) -> None:
    """Reads a whole checkpoint. Raises InputError if it is truncated or damaged, or not one of spine."""
    read_checkpoint(path)  # maps the tensors, and does not read them
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise InputError(f"'{path}' is damaged: the checksum of '{damaged}' in it does not match.")


def upgrade_checkpoint(content: Checkpoint) -> Checkpoint:
    """Returns the content of a checkpoint with today's names of tensors, configuration keys and parts."""
    tensors = {RENAMED_TENSORS.get(name, name): tensor for name, tensor in content["state_dict"].items()}
    configs: Checkpoint = {key: upgrade_config(content[key]) for key in ("config", "config_source") if key in content}
    return {**content, **configs, "state_dict": tensors}


def upgrade_config(node: object) -> object:
    """Returns a node of a configuration with today's keys and `_target_` names."""
    if isinstance(node, dict):
        return {
            RENAMED_KEYS.get(key, key): _upgrade_target(value) if key == "_target_" else upgrade_config(value)
            for key, value in node.items()
        }
    return [upgrade_config(item) for item in node] if isinstance(node, list) else node


def _upgrade_target(target: object) -> object:
    for pattern, name in RENAMED_TARGETS:
        if isinstance(target, str) and re.fullmatch(pattern, target):
            return re.sub(pattern, name, target)
    return target
