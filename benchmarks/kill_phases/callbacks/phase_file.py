"""Callback that writes what a run is doing to a file, for benchmarks/kill_resume.py."""

from __future__ import annotations

import os

import pytorch_lightning as pl

WIDTH = 40  # bytes of the file, which is overwritten in place


class PhaseFile(pl.Callback):
    """Writes "<phase> <epoch> <batch>" at the start of every batch. Phases: training, validation."""

    def __init__(self, path: str):
        self.file = os.open(path, os.O_RDWR | os.O_CREAT)

    def _write(self, phase: str, trainer: pl.Trainer, batch: int) -> None:
        os.pwrite(self.file, f"{phase} {trainer.current_epoch} {batch}".ljust(WIDTH).encode(), 0)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int) -> None:
        self._write("training", trainer, batch_idx)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._write("validation", trainer, batch_idx)
