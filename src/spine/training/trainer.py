"""Lightning's Trainer with spine's callbacks and loggers."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger, Logger

from spine.callbacks import EpochLines, Pictures
from spine.model import check_arguments
from spine.tasks.base import Task


def make_trainer(
    config: dict[str, Any],
    folder: Path,
    task: Task,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> pl.Trainer:
    """Lightning's Trainer for a plain configuration; metrics.csv is always written.

    `loggers` and `callbacks` are used beside spine's own.
    """
    check_arguments(pl.Trainer.__init__, config["trainer"], "trainer")
    for logger in loggers:
        logger.log_hyperparams(config)
    own = [
        ModelCheckpoint(
            folder / "checkpoints",
            "best",
            monitor=task.monitor,
            mode=task.mode,
            save_last=True,
            enable_version_counter=False,
        ),
        Pictures(
            str(folder / "pictures"),
            config["dataset"]["mean"],
            config["dataset"]["std"],
            loggers,
            config["callbacks"]["picture_every_n_epochs"],
        ),
        LearningRateMonitor("epoch"),
        RichProgressBar(refresh_rate=5) if sys.stdout.isatty() else EpochLines(),
    ]
    return pl.Trainer(
        default_root_dir=str(folder),
        logger=[CSVLogger(str(folder), name="", version=""), *loggers],
        callbacks=[*own, *callbacks],
        enable_progress_bar=sys.stdout.isatty(),
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
    warnings.filterwarnings("ignore", ".*number of training batches .* is smaller than the logging interval.*")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
