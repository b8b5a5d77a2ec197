"""Evaluates a checkpoint on a split. Used by train.py at the end of a run, and by eval.py."""

from __future__ import annotations

import pytorch_lightning as pl

from spine.checkpoints.run_checkpoint import read_checkpoint
from spine.data.data_module import DataModule
from spine.models.sharding import load_full_state
from spine.tasks.base import Task


def evaluate_checkpoint(trainer: pl.Trainer, task: Task, data: DataModule, split: str, checkpoint: str) -> dict[str, float]:
    """Loads the weights of a checkpoint into a task and evaluates it on a split.

    Returns metric values by name. Raises InputError if the checkpoint belongs to other inputs of the task.
    """
    content = read_checkpoint(checkpoint)
    task.check_checkpoint(content)
    load_full_state(task, content["state_dict"])
    return evaluate_split(trainer, task, data, split)


def evaluate_split(trainer: pl.Trainer, task: Task, data: DataModule, split: str) -> dict[str, float]:
    """Evaluates a task on a split as it is. Returns metric values by name."""
    task.split = split
    data.trainer = trainer  # the loader needs the number of processes
    if not task.trains:
        task.training_batches = data.loader("train")
    values = trainer.validate(task, dataloaders=data.loader(split), verbose=False)[0]
    return {key: float(value) for key, value in values.items()}
