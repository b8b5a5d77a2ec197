"""Callback that ends training if the monitored metric does not improve."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import callbacks

log = logging.getLogger(__name__)


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's callback, which checks after each validation.

    A run that it ended does not continue when it is resumed, unless `patience` is now higher.
    """

    def __init__(self, monitor: str, mode: str, patience: int = 10, min_delta: float = 0.0):
        super().__init__(
            monitor, mode=mode, patience=patience, min_delta=min_delta, check_finite=False, check_on_train_epoch_end=False
        )  # a value that is not finite is no improvement

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best value and the number of validations since. `patience` is that of this run."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    @property
    def ended(self) -> bool:
        """Whether the metric did not improve in `patience` validations."""
        return self.wait_count >= self.patience

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends a run that was interrupted after its last epoch."""
        if self.ended:
            trainer.should_stop = True
            progress = trainer.fit_loop.epoch_progress.current
            progress.completed = progress.processed  # type: ignore[attr-defined]  # as Lightning does at max_epochs

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks the metric. The epoch ends as usual, with its checkpoint."""
        ended = self.ended
        super().on_validation_end(trainer, pl_module)
        if self.ended and not ended and trainer.is_global_zero:
            log.info(
                "Training ends after epoch %d: %s did not improve in %d validations. Its best value is %.4f.",
                trainer.current_epoch + 1, self.monitor, self.wait_count, float(self.best_score),
            )  # fmt: skip


def stopped_early(trainer: pl.Trainer) -> bool:
    """Returns whether early stopping ended the training."""
    found = [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
    return any(callback.ended for callback in found)
