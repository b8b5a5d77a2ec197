"""The tokenizer of a run: which tasks read one, and its copy in the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spine.components import component_name, modules, task_spec
from spine.errors import InputError

if TYPE_CHECKING:
    from spine.option_types import Config  # imports pydantic, which would slow down every start

COPY = "tokenizer.safetensors"  # in a run folder


def check_tokenizer(config: Config) -> None:
    """Raises InputError if the task needs a tokenizer and none is given, or the other way round, or if its file does not exist."""
    name, path = component_name("task", config["task"]["_target_"]), config.get("tokenizer")
    if not task_spec(name).reads_tokenizer:
        if path is not None:
            readers = [other for other in modules("task") if task_spec(other).reads_tokenizer]
            raise InputError(f"tokenizer is '{path}', but task '{name}' reads none. Leave it out, or use task={' or '.join(readers)}.")
        return
    if path is None:
        dataset = component_name("dataset", config["dataset"]["_target_"])
        raise InputError(
            f"Task '{name}' predicts the tokens of a tokenizer, and none is given. Give tokenizer=<file>: a published file, or "
            f"the best.ckpt of a tokenizer that you train first with\n    python train.py task=dvae dataset={dataset}"
        )
    if not Path(path).exists():
        raise InputError(f"There is no tokenizer '{path}'. Give a checkpoint of task=dvae or a published file.")


def use_copy(config: Config, folder: Path) -> Config:
    """Returns a plain configuration that names the copy of its tokenizer in a run folder, if there is one.

    The run then does not depend on the original file, which may be moved or replaced.
    """
    copy = folder / COPY
    return {**config, "tokenizer": str(copy)} if config.get("tokenizer") is not None and copy.is_file() else config
