"""Keeps report.html of a run up to date. A report that cannot be written never ends a run."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import STEP_OUTPUT

from spine.tasks.base import Batch
from spine.training.loggers.metrics_file import MetricsFile
from spine.training.progress import RunProgress

MAX_SHARE = 0.01  # of the time of training that writing may take

log = logging.getLogger(__name__)


class RunReport(pl.Callback):
    """Writes the report of a run while it trains, on the first process."""

    def __init__(self, folder: Path, every_minutes: float, metrics: MetricsFile, progress: RunProgress):
        """`every_minutes`: how often; less often if writing takes more than MAX_SHARE of the time."""
        self.folder, self.metrics, self.progress = folder, metrics, progress
        self.interval = 60 * every_minutes
        self.next = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self.next = time.perf_counter() + self.interval

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Writes the report if it is due."""
        self._write_if_due(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the report if it is due."""
        self._write_if_due(trainer)

    def _write_if_due(self, trainer: pl.Trainer) -> None:
        start = time.perf_counter()
        if start < self.next or not trainer.is_global_zero:
            return
        self.metrics.save()
        write_quietly(self.folder, running=True, progress=self.progress.position(trainer))
        end = time.perf_counter()
        self.next = end + max(self.interval, (end - start) / MAX_SHARE)


def write_quietly(folder: Path, running: bool = False, progress: str = "") -> None:
    """Writes the report of a run in this process. Logs a warning if it cannot be written."""
    try:
        from spine.reporting.report.page import write_report  # imports Jinja

        write_report(folder, running, progress)
    except Exception as error:  # a full disk, a damaged file: the run is worth more than its report
        log.warning("%s could not be written: %s: %s", folder / "report.html", type(error).__name__, error)
