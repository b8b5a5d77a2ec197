"""What a study optimizes: metrics of the trained network and its costs, each with its direction."""

from __future__ import annotations

from collections.abc import Mapping

from spine.components import component_name, task_spec
from spine.config.instantiate import target_of
from spine.config.schemas import COSTS
from spine.errors import InputError
from spine.option_types import Config
from spine.training.study import Direction

DIRECTIONS: dict[str, Direction] = {"max": "maximize", "min": "minimize"}  # of a task -> of Optuna


def objectives(config: Config) -> dict[str, str]:
    """Returns the name and the direction, max or min, of each objective of `sweep.objectives`.

    The default is the metric that selects the best checkpoint of the task. Imports the task, and
    with it torch. Raises InputError if the direction of a metric is not known, or if a pruner cannot
    use the objectives.
    """
    given, task = config["sweep"].get("objectives"), target_of("task", config["task"])
    if given is None:
        return {task.monitor: task.mode}
    known = {**COSTS, task.monitor: task.mode, "val/loss": "min"}
    named = given if isinstance(given, Mapping) else {name: known.get(name) for name in given}
    if not named:
        raise InputError(
            f"sweep.objectives is empty. Use null for {task.monitor}, or name them: sweep.objectives=[{task.monitor}]."
        )
    for name, direction in named.items():
        if direction is None:
            raise InputError(
                f"Is more of the objective '{name}' better? Give its direction, such as sweep.objectives={{{name}: max}}. "
                f"Known directions: {', '.join(f'{each} {way}' for each, way in known.items())}."
            )
        if name in known and direction != known[name]:
            raise InputError(f"sweep.objectives has {name}: {direction}, but {known[name]} is better. Use {name}: {known[name]}.")
    if "latency_ms" in named and task_spec(component_name("task", config["task"]["_target_"])).head_input == "tokens":
        raise InputError("latency_ms cannot be an objective of this task: its network takes masked images.")
    if config["sweep"].get("pruner") is not None and (len(named) > 1 or not next(iter(named)).startswith("val/")):
        raise InputError("sweep.pruner needs exactly one objective, a metric of validation. Use sweep.pruner=null.")
    return dict(named)
