"""Finds the classes of tasks and of their predictions by name, in spine and in plug-ins."""

from __future__ import annotations

import importlib

from spine.components import module_name, subclass_in
from spine.prediction.prediction import Prediction
from spine.tasks.base import Task


def task_class(name: str) -> type[Task]:
    """Returns the task in a folder of `tasks`. Raises InputError if there is none of that name."""
    return subclass_in(importlib.import_module(f"{module_name('task', name)}.task"), Task)


def prediction_class(task: str) -> type[Prediction]:
    """Returns what a task predicts for one image: the class in `prediction.results`. Raises InputError if it has none."""
    return subclass_in(importlib.import_module(module_name("prediction", task)), Prediction)
