"""What a checkpoint says about its run: the configuration, the names of the outputs, the size of the images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spine.checkpoints.run_checkpoint import read_checkpoint
from spine.components import component_name, task_spec
from spine.config.tokenizer import with_stored_tokenizer
from spine.config.untrusted import strip_untrusted
from spine.errors import InputError
from spine.option_types import Config

if TYPE_CHECKING:
    from spine.interfaces import Labels

# Only the precision of the training run is kept: its limits and devices do not apply to an
# evaluation.
TRAINER = {
    "max_epochs": 1, "max_time": None, "accelerator": "auto", "devices": 1, "strategy": "auto", "sync_batchnorm": False,
    "gradient_clip_val": None, "accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "num_sanity_val_steps": 0,
    "limit_train_batches": 1.0, "limit_val_batches": 1.0, "fast_dev_run": False, "deterministic": False, "log_every_n_steps": 50,
}  # fmt: skip


def checkpoint_config(path: str) -> Config:
    """Returns the configuration in a checkpoint with its interpolations, without untrusted parts.

    Raises InputError if the file is not a checkpoint of spine, or if its configuration names parts
    that are not allowed.
    """
    state = read_checkpoint(path)
    if not state["config"]:
        raise InputError(
            f"'{path}' was not written by train.py and has no configuration. Load it with <Task>.load_from_checkpoint."
        )
    config = strip_untrusted(state.get("config_source") or state["config"])
    config["num_outputs"] = state["config"].get("num_outputs")
    config["trainer"] = {**TRAINER, "precision": state["config"]["trainer"]["precision"]}
    config["compile"] = False
    config.pop("restart", None)
    return with_stored_tokenizer(strip_untrusted(config), Path(path).absolute().parent.parent)


def saved_labels(checkpoint: str) -> Labels | None:
    """Returns the names of classes, mask classes and keypoints in a checkpoint.

    Returns None if an older version wrote the checkpoint without them.
    """
    from spine.interfaces import Labels

    saved = read_checkpoint(checkpoint).get("labels")
    return Labels.from_dict(saved) if saved else None


def trained_size(checkpoint: str, config: Config) -> tuple[int, int] | None:
    """Returns the image size (height, width) for which the network of a checkpoint was built.

    Its position embedding has this size; the network resizes it to that of the images. None for a
    checkpoint of an older version. Raises InputError for a network whose output has one size.
    """
    content = read_checkpoint(checkpoint)
    trained, size = content["config"].get("image_size"), config["image_size"]
    if task_spec(component_name("task", config["task"]["_target_"])).head_input == "tokens" and trained != size:
        raise InputError(
            f"image_size is {size}, but this checkpoint was trained at {trained}, and its head has an output for each patch "
            f"of that size. Leave image_size out."
        )
    saved = (content.get("network") or {}).get("image_size")
    return (saved[0], saved[1]) if saved else None
