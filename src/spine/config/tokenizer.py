"""The tokenizer of a configuration: checks before anything is built, and what a stored configuration takes from its run folder."""

from __future__ import annotations

import copy
from pathlib import Path

from spine.checkpoints.run_checkpoint import tokenizer_of_run
from spine.components import component_name, modules, task_spec
from spine.config.places import augmentations
from spine.errors import InputError
from spine.option_types import Config


def check_tokenizer(config: Config) -> None:
    """Raises InputError if the task needs a tokenizer and none is given, or the other way round, or if its file does not exist."""
    name, path = component_name("task", config["task"]["_target_"]), config.get("tokenizer")
    if not task_spec(name).reads_tokenizer:
        if path is not None:
            readers = [other for other in modules("task") if task_spec(other).reads_tokenizer]
            raise InputError(
                f"tokenizer is '{path}', but task '{name}' reads none. Leave it out, or use task={' or '.join(readers)}."
            )
        return
    if path is None:
        dataset = component_name("dataset", config["dataset"]["_target_"])
        raise InputError(
            f"Task '{name}' predicts the tokens of a tokenizer, and none is given. Give tokenizer=<file>: a published file, or "
            f"the best.ckpt of a tokenizer that you train first with\n    python train.py task=dvae dataset={dataset}"
        )
    if not Path(path).is_file():
        raise InputError(f"There is no tokenizer '{path}'. Give a checkpoint of task=dvae or a published file.")


def with_stored_tokenizer(config: Config, folder: Path) -> Config:
    """Returns a stored configuration that names the copy of the tokenizer in its run folder, if there is one.

    The sizes of the images for the tokenizer are null: they follow from the network, also after an override of `image_size`.
    """
    stored = {**copy.deepcopy(config), "tokenizer": tokenizer_of_run(config, folder)}
    if stored["tokenizer"] is not None:
        for _, step in augmentations(stored):
            if "second_size" in step:
                step["second_size"] = None
    return stored
