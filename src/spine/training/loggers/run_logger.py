"""What the loggers of spine hold in addition to metrics: pictures, samples, results, and earlier rows of a resumed run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from pytorch_lightning.loggers import Logger

from spine.option_types import Config
from spine.tasks.samples import SampleView
from spine.training.run_folder import TrainingResults

Row = Mapping[str, float]  # of metrics.csv, with its "step"


@dataclass(frozen=True)
class LoggedRun:
    """The run that a logger is created for. Its names follow from its folder.

    `checkpoint`: the file that the run evaluates; None for a training run.
    """

    folder: Path
    checkpoint: Path | None = None

    @property
    def job_type(self) -> str:
        """Either "train" or "eval"."""
        return "train" if self.checkpoint is None else "eval"

    @property
    def training_folder(self) -> Path | None:
        """The folder of the training run, or None if the checkpoint is not in a run folder."""
        if self.checkpoint is None:
            return self.folder
        folder = self.checkpoint.resolve().parent.parent
        return folder if (folder / "config.json").is_file() else None

    @property
    def name(self) -> str:
        """The name of the run folder; for a job of a sweep, its swept keys; for an evaluation, after that of its training run."""
        training = self.training_folder
        if training is None:
            return self.folder.name
        swept = " ".join(_swept_overrides(training))
        name = f"{swept} ({training.name})" if swept else training.name
        return name if self.checkpoint is None else f"{name} {self.folder.name}"

    @property
    def group(self) -> str | None:
        """The name of the sweep, or that of the training run, which its evaluations join."""
        training = self.training_folder
        if training is None:
            return None
        return training.parent.name if _in_sweep(training) else training.name


def _in_sweep(folder: Path) -> bool:
    """Returns whether a run folder belongs to a sweep. Hydra writes multirun.yaml into the folder of a sweep."""
    return (folder.parent / "multirun.yaml").is_file()


def _swept_overrides(folder: Path) -> list[str]:
    """Returns the overrides of a job that are not the same for the whole sweep, as `key=value`."""
    own = folder / ".hydra" / "overrides.yaml"
    if not _in_sweep(folder) or not own.is_file():
        return []
    sweep = yaml.safe_load((folder.parent / "multirun.yaml").read_text())
    common = set(map(_without_spelling, sweep["hydra"]["overrides"]["task"]))
    return [str(override) for override in yaml.safe_load(own.read_text()) or [] if _without_spelling(override) not in common]


def _without_spelling(override: object) -> str:
    """Returns an override without spaces and quotes, which Hydra changes in the overrides of a job."""
    return re.sub(r"[\s'\"]", "", str(override))


class RunLogger(Logger):
    """A logger of Lightning that also holds pictures, samples and results. Every process may call its methods."""

    def start(self, monitor: str, mode: str, rows: Sequence[Row]) -> None:
        """Called before the first row.

        `monitor`, `mode`: the metric that selects the best checkpoint, and whether its best value
        is the "max" or the "min". `rows`: the rows of metrics.csv that a resumed run keeps.
        """

    def log_figure(self, name: str, image: np.ndarray, step: int) -> None:
        """Logs a rendered figure (H, W, 3) uint8. `step`: the number of optimizer steps."""

    def log_samples(self, name: str, samples: Sequence[SampleView], step: int) -> None:
        """Logs samples with what the task predicts for them."""

    def log_confusion(self, name: str, counts: np.ndarray, classes: Sequence[str], step: int) -> None:
        """Logs a confusion matrix (classes, classes) with the ground truth in rows."""

    def log_results(self, config: Config, values: Mapping[str, float]) -> None:
        """Logs the final results. They belong to the run, and not to one of its steps."""

    def finish(self, succeeded: bool) -> None:
        """Ends the run, and writes what is still in memory."""


def run_loggers(loggers: Sequence[Logger]) -> list[RunLogger]:
    """Returns the loggers that hold pictures and results."""
    return [logger for logger in loggers if isinstance(logger, RunLogger)]


def logged_results(results: TrainingResults) -> dict[str, float | None]:
    """Returns the metrics of the best checkpoint as best/<metric>, and what the run cost as costs/<name>."""
    metrics = {f"best/{name}": value for name, value in results["metrics"].items()}
    costs = {f"costs/{name}": value for name, value in results["costs"].items() if isinstance(value, int | float)}
    return {**metrics, **costs}


def log_results(loggers: Sequence[Logger], config: Config, values: Mapping[str, float | None]) -> None:
    """Logs the final results of a run; those that are not known are left out."""
    known = {name: float(value) for name, value in values.items() if value is not None}
    for logger in run_loggers(loggers):
        logger.log_results(config, known)


@contextmanager
def finished_at_end(loggers: Sequence[Logger]) -> Iterator[None]:
    """Ends the runs of the loggers when the block ends, as failed runs if it raises."""
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        for logger in run_loggers(loggers):
            logger.finish(succeeded)
