"""Checks `tokenizer=` before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spine.components import component_name, modules, task_spec
from spine.errors import InputError

if TYPE_CHECKING:
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
