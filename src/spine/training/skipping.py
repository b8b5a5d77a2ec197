"""Leaves out optimizer steps whose loss or gradients are not finite."""

from __future__ import annotations

import logging

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from spine.errors import InputError
from spine.models.sharding import local_part

log = logging.getLogger(__name__)
MAX_CONSECUTIVE = 20
METRIC = "train/skipped_steps"


class SkipBadSteps(pl.Callback):
    """Skips the optimizer step if a loss or a gradient of its batches is NaN or infinite, on all processes alike.

    Parameters, optimizer state and buffers, such as the running statistics of batch norm, keep the
    values that they had before the step. The step counts: step number, epoch and learning rate
    schedule advance as usual.

    The host must know before the optimizer step whether to skip it. Every step therefore waits for
    its backward pass, as it does with the gradient scaler of 16-mixed precision; on accelerators,
    the kernels of the optimizer and of the next step are no longer queued in advance. Optimizers
    that decide on the device exist only as fused kernels, which round differently.
    """

    def __init__(self) -> None:
        self.total, self.consecutive = 0, 0
        self.recent: set[int] = set()  # skipped steps of this epoch, from 1
        self.losses: list[Tensor] = []  # () each, of the batches since the last step
        self.saved_buffers: list[Tensor] = []  # as they were before the step

    def state_dict(self) -> dict[str, int]:
        """Returns the numbers of skipped steps, for the checkpoint."""
        return {"total": self.total, "consecutive": self.consecutive}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restores the numbers of a checkpoint."""
        self.total, self.consecutive = state_dict["total"], state_dict["consecutive"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forgets the steps of the epoch before."""
        self.recent, self.losses = set(), []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        """Copies the buffers before the first batch of a step: the forward pass changes them."""
        if self.losses:
            return
        buffers = list(pl_module.buffers())
        if len(self.saved_buffers) != len(buffers):
            self.saved_buffers = [buffer.clone() for buffer in buffers]
        elif buffers:
            torch._foreach_copy_(self.saved_buffers, buffers)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Remembers the loss of the batch, on the device."""
        self.losses.append(loss.detach().float())

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Skips the step if it is bad: an optimizer leaves parameters without a gradient, and their state, as they are.

        Raises InputError after more than MAX_CONSECUTIVE skipped steps.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [local_part(p.grad) for p in parameters if p.grad is not None]
        largest = torch.nn.utils.get_total_norm(gradients, float("inf")).to(self.losses[0].device)
        bad = not bool(torch.stack([*self.losses, largest.float()]).isfinite().all())
        self.losses = []
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce_boolean_decision(bad, all=False)
        if not bad:
            self.consecutive = 0
            return
        for parameter in parameters:
            parameter.grad = None
        if self.saved_buffers:
            torch._foreach_copy_(list(pl_module.buffers()), self.saved_buffers)
        self._count(trainer)

    def _count(self, trainer: pl.Trainer) -> None:
        """Counts and logs a skipped step. Raises InputError if there are too many in a row."""
        step = trainer.global_step + 1
        self.total, self.consecutive = self.total + 1, self.consecutive + 1
        self.recent.add(step)
        for logger in trainer.loggers:
            logger.log_metrics({METRIC: self.total, "epoch": trainer.current_epoch}, step=trainer.global_step)
        if trainer.is_global_zero:
            log.warning("Step %d was skipped: its loss or gradients are not finite (%d skipped so far).", step, self.total)
        if self.consecutive > MAX_CONSECUTIVE:
            raise InputError(
                f"The last {self.consecutive} steps were skipped, because loss or gradients are not finite. The run was stopped in "
                f"step {step}; earlier checkpoints are kept. Try a lower optimizer.lr or trainer.precision=32-true, and check the "
                f"batches in skipped.jsonl."
            )
