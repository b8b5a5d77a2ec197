"""Stops a run if its loss is not finite."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor

from spine.errors import InputError
from spine.models.sharding import local_part
from spine.training.step_output import step_loss

ADVICE = (
    "Try a lower optimizer.lr, a longer schedule.warmup, trainer.gradient_clip_val=1.0 or trainer.precision=32-true. "
    "If the data holds extreme values, check these first."
)


def require_finite_weights(module: pl.LightningModule) -> None:
    """Raises InputError if a parameter holds a value that is not finite."""
    finite = torch.stack([local_part(parameter.detach()).isfinite().all() for parameter in module.parameters()]).all()
    if not module.trainer.strategy.reduce_boolean_decision(bool(finite)):
        step = module.trainer.global_step
        raise InputError(f"The weights are not finite after step {step}; no checkpoint of them was written. {ADVICE}")


class FiniteLoss(pl.Callback):
    """Ends the run with an InputError when the training loss is NaN or infinite.

    On accelerators the loss is checked only every `every_n_steps` steps, because the check waits
    for the device. The message still names the first step with such a loss. Checkpoints with
    weights that are not finite are never written.
    """

    def __init__(self, every_n_steps: int):
        self.every_n_steps = max(1, every_n_steps)
        self.first_bad: Tensor | None = None  # () on the device: the first step with a loss that is not finite, or -1

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, *args: object) -> None:
        """Records the first bad step on the device, and checks it if the check is due."""
        loss = step_loss(outputs)
        if self.first_bad is None:
            self.first_bad = torch.full((), -1, device=loss.device)
        bad = ~loss.isfinite() & (self.first_bad < 0)
        self.first_bad = torch.where(bad, trainer.global_step, self.first_bad)
        loop = trainer.fit_loop.epoch_loop
        due = loss.device.type == "cpu" or loop.total_batch_idx % self.every_n_steps == 0
        if due or loop.batch_progress.is_last_batch:
            self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        """Raises InputError if a loss on any process was not finite."""
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
                f"The run was stopped; earlier checkpoints are kept. {ADVICE}"
            )
