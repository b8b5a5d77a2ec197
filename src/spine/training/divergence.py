"""Stops a run whose loss is no longer a finite number."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from spine.errors import InputError

ADVICE = (
    "Try a lower optimizer.lr, a longer schedule.warmup, trainer.gradient_clip_val=1.0 or trainer.precision=32-true; "
    "if the data holds extreme values, look at these first."
)


def require_finite_weights(module: pl.LightningModule) -> None:
    """Raises InputError where a parameter holds a value that is not finite."""
    finite = torch.stack([parameter.detach().isfinite().all() for parameter in module.parameters()]).all()
    if not finite:
        step = module.trainer.global_step
        raise InputError(f"The weights are not finite after step {step}; no checkpoint of them was written. {ADVICE}")


class FiniteLoss(pl.Callback):
    """Ends the run with one sentence once the training loss is NaN or infinite.

    On accelerators the loss is looked at every `every_n_steps` steps only, because looking waits for the device; the step
    that is named is the first bad one all the same. Checkpoints of weights that are not finite are never written.
    """

    def __init__(self, every_n_steps: int):
        self.every_n_steps = max(1, every_n_steps)
        self.first_bad: Tensor | None = None  # () step of the first loss that was not finite, -1 while there is none

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        """Remembers the first bad step on the device, and looks at it now and then."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if self.first_bad is None:
            self.first_bad = torch.full((), -1, device=loss.device)
        bad = ~loss.detach().isfinite() & (self.first_bad < 0)
        self.first_bad = torch.where(bad, trainer.global_step, self.first_bad)
        loop = trainer.fit_loop.epoch_loop
        due = loss.device.type == "cpu" or loop.total_batch_idx % self.every_n_steps == 0
        if due or loop.batch_progress.is_last_batch:
            self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        assert self.first_bad is not None
        diverged = bool(self.first_bad >= 0)
        if trainer.world_size > 1:
            diverged = trainer.strategy.reduce_boolean_decision(diverged, all=False)
        if diverged:
            rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
            step = int(self.first_bad)
            where = f"in step {step}" if step >= 0 else "on another process"
            raise InputError(
                f"The training loss is not finite ({where}, epoch {trainer.current_epoch + 1}, learning rate {rate:.3g}). "
                f"The run is stopped; the checkpoints written before are kept. {ADVICE}"
            )
