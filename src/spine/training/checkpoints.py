"""Callbacks that save the last and the best checkpoint of a run, and the writer of the files."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor

from spine.checkpoints.run_checkpoint import upgrade_checkpoint
from spine.errors import InputError
from spine.training.divergence import require_finite_weights
from spine.training.loggers.metrics_file import MetricsFile

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
CheckpointContent = dict[str, Any]  # tensors, numbers and text in nested dictionaries and lists


class BestCheckpoint(ModelCheckpoint):
    """Writes best.ckpt whenever the monitored metric improves.

    Values that are not finite are ignored.
    """

    def __init__(self, folder: Path, monitor: str, mode: str, filename: str = "best", keep: int = 1):
        super().__init__(folder, filename, monitor=monitor, mode=mode, save_top_k=keep, enable_version_counter=False)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Returns whether `current` is better than the best value so far."""
        if current is None or not torch.isfinite(torch.as_tensor(current)):
            return False
        return super().check_monitor_top_k(trainer, current)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        require_finite_weights(trainer.lightning_module)
        super()._save_checkpoint(trainer, filepath)


class TopCheckpoints(BestCheckpoint):
    """Keeps the `keep` best checkpoints as top-<epoch>.ckpt, in addition to best.ckpt.

    `by_step`: names them after the step instead, for several validations in an epoch.
    """

    def __init__(self, folder: Path, monitor: str, mode: str, keep: int, by_step: bool = False):
        super().__init__(folder, monitor, mode, filename="top-{step:06d}" if by_step else "top-{epoch:03d}", keep=keep)


class LastCheckpoint(Checkpoint):
    """Writes last.ckpt at the end of every epoch, and within an epoch if it is due or the run ends.

    Within an epoch, it saves the state after a step, so that a resumed run continues in the same
    epoch. It is due `every_minutes` after the previous checkpoint, and after `every_steps` steps.
    """

    def __init__(self, path: Path, metrics: MetricsFile, every_minutes: float | None = None, every_steps: int | None = None):
        """`metrics`: written to disk with every checkpoint, which stores the number of its rows."""
        self.path, self.metrics = path, metrics
        self.every_minutes, self.every_steps = every_minutes, every_steps
        self.saved_at = time.monotonic()
        self.saved_step: int | None = None  # the step of a checkpoint that was saved within an epoch
        self.stop_pending = False  # stop as soon as the gradients of the current step are accumulated

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        """Saves if the run ends within an epoch."""
        loop = trainer.fit_loop.epoch_loop
        if loop.batch_progress.is_last_batch or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if loop._should_accumulate():  # accumulated gradients are not saved in checkpoints: finish the step first
            self.stop_pending = self.stop_pending or trainer.should_stop
            trainer.should_stop = False
            return
        trainer.should_stop = trainer.should_stop or self.stop_pending
        limit = trainer.max_steps
        ends = trainer.should_stop or (limit is not None and 0 <= limit <= trainer.global_step)
        if ends or self._due(trainer):
            self.save(trainer)
            self.saved_step = trainer.global_step

    def _due(self, trainer: pl.Trainer) -> bool:
        """Returns whether a checkpoint is due. All processes agree, because saving is collective."""
        if self.every_steps is not None and trainer.global_step % self.every_steps == 0:
            return True
        if self.every_minutes is None:
            return False
        due = time.monotonic() - self.saved_at >= 60 * self.every_minutes
        return due if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(due, all=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self.saved_at = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves at the end of an epoch."""
        if self.saved_step != trainer.global_step and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.save(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: CheckpointContent) -> None:
        """Adds the number of rows of metrics.csv. A resumed run drops later rows."""
        checkpoint["metrics_rows"] = self.metrics.rows

    def save(self, trainer: pl.Trainer) -> None:
        """Saves the current state.

        Raises InputError if a weight is not finite. The existing file is then kept.
        """
        require_finite_weights(trainer.lightning_module)
        for logger in trainer.loggers:  # metrics.csv among them
            logger.save()
        trainer.save_checkpoint(self.path)
        self.saved_at = time.monotonic()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file and renames it, so that no checkpoint is ever incomplete.

    The temporary file is in the same folder, because renaming is atomic within a file system only.
    The last.ckpt that is replaced is kept as previous.ckpt.
    """

    def save_checkpoint(self, checkpoint: CheckpointContent, path: str | Path, storage_options: object = None) -> None:
        """Writes `checkpoint` to `path`.

        Raises InputError if that fails, for example if the disk is full; an existing file is kept.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.name == LAST and path.is_file():
                keep_as(path, path.with_name(PREVIOUS))
            part.replace(path)
            sync_folder(path.parent)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            part.unlink(missing_ok=True)
            previous = " The previous one is kept." if path.is_file() else ""
            raise InputError(
                f"The checkpoint '{path}' could not be written ({error}).{previous} Free some space on the disk, then run the "
                f"same command again."
            ) from error

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> CheckpointContent:
        """Reads a checkpoint and translates the names of older versions."""
        return upgrade_checkpoint(super().load_checkpoint(path, *args, **kwargs))


def keep_as(path: Path, other: Path) -> None:
    """Gives a file a second name, which replaces an existing file. `path` exists at every moment."""
    link = other.with_name(f".{other.name}.part")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        path.replace(other)
        return
    link.replace(other)


def sync_folder(folder: Path) -> None:
    """Writes the names in a folder to disk, so that a renamed file survives a power failure."""
    with contextlib.suppress(OSError):  # some network file systems cannot do this
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
