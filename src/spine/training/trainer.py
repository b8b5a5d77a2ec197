"""Lightning's Trainer with spine's callbacks and loggers."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from spine.components import check_arguments
from spine.tasks.base import Task
from spine.training.checkpoints import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint
from spine.training.divergence import FiniteLoss
from spine.training.figures import PredictionFigures
from spine.training.loggers.metrics_file import MetricsFile
from spine.training.progress import RunProgress, StepStatistics
from spine.training.random_state import RandomState
from spine.training.stopping import StopOnSignal


def make_trainer(
    config: dict[str, Any],
    folder: Path,
    task: Task,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    kept_rows: int = 0,
) -> pl.Trainer:
    """Lightning's Trainer for a plain configuration; metrics.csv is always written.

    `loggers` and `callbacks` are used beside spine's own. `kept_rows` of an existing metrics.csv stay: a run is resumed.
    """
    check_arguments(pl.Trainer.__init__, config["trainer"], "trainer")
    for logger in loggers:
        logger.log_hyperparams(config)
    metrics = MetricsFile(folder / "metrics.csv", kept_rows)
    figures = PredictionFigures(
        str(folder / "figures"),
        config["dataset"]["mean"],
        config["dataset"]["std"],
        loggers,
        config["callbacks"]["figure_every_n_epochs"],
    )
    statistics, random_state = StepStatistics(), RandomState(config["seed"])
    last = LastCheckpoint(folder / "checkpoints" / "last.ckpt", metrics)
    own: list[Callback] = [
        figures,
        FiniteLoss(config["trainer"]["log_every_n_steps"]),
        statistics,
        RunProgress(sys.stdout.isatty(), statistics),
        random_state,
        StopOnSignal(last, random_state),
    ]
    if config["trainer"]["limit_val_batches"] != 0:
        own.append(BestCheckpoint(folder / "checkpoints", task.monitor, task.mode))
    own.append(last)  # behind the best: last.ckpt holds what was the best when it was written
    return pl.Trainer(
        default_root_dir=str(folder),
        logger=[metrics, *loggers],
        callbacks=[*own, *callbacks],
        enable_progress_bar=False,  # RunProgress draws it
        plugins=[AtomicCheckpointIO()],
        enable_model_summary=False,
        use_distributed_sampler=False,
        **config["trainer"],
    )


def silence_libraries() -> None:
    """Hides messages of Lightning that say nothing to a user: advice on workers, tips, device lists, pending deprecations."""
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*It is recommended to use .*sync_dist=True.*")  # metrics are gathered already
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*Experiment logs directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*dirpath has changed.*")  # reported in spine's words
    warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint need to be provided.*")  # the timer of max_time
    warnings.filterwarnings("ignore", ".*number of training batches .* is smaller than the logging interval.*")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
