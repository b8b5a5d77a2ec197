"""Callbacks that save the last and the best checkpoint of a run, and the writer of the files."""

from __future__ import annotations

import os
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

CheckpointContent = dict[str, Any]  # tensors, numbers and text in nested dictionaries and lists


class BestCheckpoint(ModelCheckpoint):
    """Writes best.ckpt whenever the monitored metric improves.

    Values that are not finite are ignored.
    """

    def __init__(self, folder: Path, monitor: str, mode: str):
        super().__init__(folder, "best", monitor=monitor, mode=mode, enable_version_counter=False)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Returns whether `current` is better than the best value so far."""
        if current is None or not torch.isfinite(torch.as_tensor(current)):
            return False
        return super().check_monitor_top_k(trainer, current)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        require_finite_weights(trainer.lightning_module)
        super()._save_checkpoint(trainer, filepath)


class LastCheckpoint(Checkpoint):
    """Writes last.ckpt at the end of every epoch, and if max_steps or max_time ends a run earlier.

    Within an epoch, it saves the state after the last step, so that a resumed run continues in the
    same epoch.
    """

    def __init__(self, path: Path, metrics: MetricsFile):
        """`metrics`: written to disk with every checkpoint, which stores the number of its rows."""
        self.path, self.metrics = path, metrics
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
        if trainer.should_stop or (limit is not None and 0 <= limit <= trainer.global_step):
            self.save(trainer)
            self.saved_step = trainer.global_step

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
        self.metrics.save()
        trainer.save_checkpoint(self.path)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file and renames it, so that no checkpoint is ever incomplete.

    The temporary file is in the same folder, because renaming is atomic within a file system only.
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
            part.replace(path)
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
