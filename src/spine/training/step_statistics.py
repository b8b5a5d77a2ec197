"""Logs statistics of training steps."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor
from torch.optim import Optimizer

from spine.models.sharding import full_tensor
from spine.tasks.base import Batch
from spine.training.speed import SpeedMeter
from spine.training.step_output import step_loss


class StepStatistics(pl.Callback):
    """Logs statistics every `log_every_n_steps` steps.

    train/loss_step; train/lr, the highest of the parameter groups; train/grad_norm, before
    clipping; train/images_per_s, of all processes; and train/data_wait, the fraction of time in
    which the process waited for batches.
    """

    def __init__(self) -> None:
        self.meter = SpeedMeter()  # since the last logged step
        self.grad_norm: Tensor | None = None
        self.lr = 0.0
        self.latest: list[str] = []  # the last learning rate and gradient norm, for the progress of the run

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock, and the measurement of the peak memory of a GPU."""
        self.meter.restart(trainer)
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)  # the previous run of a sweep used the same process

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restarts the clock: the time between epochs does not count."""
        self.meter.restart(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops the clock."""
        self.meter.pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continues the clock."""
        self.meter.resume()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Measures the gradients if the step will be logged.

        They are unscaled and not yet clipped.
        """
        if self._due(trainer.global_step + 1, trainer):
            self.lr = max(group["lr"] for group in optimizer.param_groups)
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self.grad_norm = full_tensor(torch.nn.utils.get_total_norm(gradients))

    @staticmethod
    def _due(step: int, trainer: pl.Trainer) -> bool:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and step % every == 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Logs the step if it is due."""
        self.meter.count(len(batch["image"]) * trainer.world_size)
        loop = trainer.fit_loop.epoch_loop
        if loop._should_accumulate() or not self._due(trainer.global_step, trainer):
            return
        speed = self.meter.measure(trainer)
        values = {
            "train/loss_step": float(step_loss(outputs)),
            "train/lr": self.lr,
            "train/images_per_s": speed.images_per_s,
            "train/data_wait": speed.data_wait,
        }
        self.latest = [f"lr {self.lr:.3g}"]
        if self.grad_norm is not None:
            values["train/grad_norm"] = float(self.grad_norm)
            self.latest.append(f"grad norm {values['train/grad_norm']:.3g}")
        for logger in trainer.loggers:
            logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=trainer.global_step - 1)
        self.meter.restart(trainer)
