"""When checkpoints are written, and how: the last state of a run, and its best one."""

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


class BestCheckpoint(ModelCheckpoint):
    """Writes best.ckpt whenever the watched metric improves. A value that is not finite is never the best."""

    def __init__(self, folder: Path, monitor: str, mode: str):
        super().__init__(folder, "best", monitor=monitor, mode=mode, enable_version_counter=False)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether `current` is better than what was kept."""
        if current is None or not torch.isfinite(torch.as_tensor(current)):
            return False
        return super().check_monitor_top_k(trainer, current)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        require_finite_weights(trainer.lightning_module)
        super()._save_checkpoint(trainer, filepath)


class LastCheckpoint(Checkpoint):
    """Writes last.ckpt: at the end of every epoch, and where max_steps or max_time ends a run within an epoch.

    In the second case the state is that behind the last step, so that a resumed run goes on in the same epoch.
    """

    def __init__(self, path: Path, metrics: MetricsFile):
        """`metrics` is written to disk with every state, and each state holds how many of its rows belong to it."""
        self.path, self.metrics = path, metrics
        self.saved_step: int | None = None  # the step of a state saved within an epoch
        self.stop_waits = False  # training is to stop, behind the step that gradients are accumulated for

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Saves if the run ends here, and not at the end of its epoch."""
        loop = trainer.fit_loop.epoch_loop
        if loop.batch_progress.is_last_batch or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if loop._should_accumulate():  # accumulated gradients are in no checkpoint: the step is finished first
            self.stop_waits = self.stop_waits or trainer.should_stop
            trainer.should_stop = False
            return
        trainer.should_stop = trainer.should_stop or self.stop_waits
        limit = trainer.max_steps
        if trainer.should_stop or (limit is not None and 0 <= limit <= trainer.global_step):
            self.save(trainer)
            self.saved_step = trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the finished epoch."""
        if self.saved_step != trainer.global_step and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.save(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the number of rows of metrics.csv: a resumed run drops what was logged after this state."""
        checkpoint["metrics_rows"] = self.metrics.rows

    def save(self, trainer: pl.Trainer) -> None:
        """Writes the state of this moment. Raises InputError where a weight is not finite: the file that is there stays."""
        require_finite_weights(trainer.lightning_module)
        self.metrics.save()
        trainer.save_checkpoint(self.path)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the final path and renames, on one file system: a checkpoint is whole or it is not there."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes `checkpoint` to `path`. Raises InputError where the disk is full; what was at `path` stays as it was."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as RuntimeError
            part.unlink(missing_ok=True)
            kept = " The previous one is kept." if path.is_file() else ""
            raise InputError(
                f"The checkpoint '{path}' could not be written ({error}).{kept} Free some space on the disk, then run the "
                f"same command again."
            ) from error

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Reads a checkpoint; names of older versions are translated."""
        return upgrade_checkpoint(super().load_checkpoint(path, *args, **kwargs))
