"""What every task shares: one step for train, val and test, the optimizer, the names of logged values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from spine.interfaces import Labels

Batch = dict[str, Tensor]
Show = Callable[[Tensor], np.ndarray]  # normalised images (B, 3, H, W) -> (B, H, W, 3) uint8


class Task(pl.LightningModule):
    """Trains and evaluates a network. A task states its loss, its metrics and its pictures; it is handed everything else."""

    name: ClassVar[str]
    monitor: ClassVar[str]  # the metric that chooses the best checkpoint
    mode: ClassVar[str] = "max"

    def __init__(
        self,
        model: nn.Module,
        optimizer: Callable[[nn.Module], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        labels: Labels,
    ):
        super().__init__()
        self.model, self.labels = model, labels
        self.make_optimizer, self.make_schedule = optimizer, schedule
        self.split = "val"  # names what is evaluated
        self.weights: Any = None  # what was loaded to start from (spine.weights.Report)
        self.config: dict[str, Any] = {}  # the run's resolved configuration, as plain data; travels in every checkpoint
        self.config_source: dict[str, Any] = {}  # the same with its interpolations: overrides reach what follows from them
        self.train_loss = MeanMetric(nan_strategy="disable")  # of the epoch; checking for NaN would wait for the device
        self.split_loss = MeanMetric(nan_strategy="disable")

    def measure(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and the network's answer for one batch: the one step that training and evaluation share."""
        raise TypeError(f"{type(self).__name__} does not say how it measures a batch.")

    def update_metrics(self, output: Tensor, batch: Batch) -> None:
        """Takes one evaluated batch into the metrics."""

    def compute_metrics(self) -> dict[str, float]:
        """Values by name, without the split, of all batches since the last call; starts the metrics anew."""
        return {}

    def draw(self, batch: Batch, output: Tensor, show: Show) -> dict[str, Figure]:
        """Pictures by name of one evaluated batch; `show` turns normalised images into ones to look at."""
        return {}

    def draw_summary(self) -> dict[str, Figure]:
        """Pictures by name of the whole evaluation, drawn before its metrics start anew."""
        return {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        loss, _ = self.measure(batch)
        self.train_loss.update(loss.detach(), len(batch["image"]))
        return loss

    def on_train_epoch_start(self) -> None:
        """Starts the mean loss of the epoch; an epoch that is resumed within goes on with the mean of its checkpoint."""
        self.train_loss.reset()

    def on_train_epoch_end(self) -> None:
        """Logs the mean loss of the epoch. It is handed to the loggers here, so that it is written before the epoch is saved."""
        value = self.train_loss.compute()
        self.log("train/loss", value, logger=False)
        for logger in self.loggers:
            logger.log_metrics({"train/loss": float(value), "epoch": self.current_epoch}, step=self.global_step - 1)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Takes a batch into loss and metrics; returns the network's answer for the pictures."""
        loss, output = self.measure(batch)
        sampler = getattr(self.trainer.val_dataloaders, "batch_sampler", None)
        if not getattr(sampler, "spare", False):  # a copy that only keeps this process in step with the others
            self.split_loss.update(loss, len(batch["image"]))
            self.update_metrics(output, batch)
        return output

    def on_validation_epoch_start(self) -> None:
        """Starts the mean loss of the split."""
        self.split_loss.reset()

    def on_validation_epoch_end(self) -> None:
        """Logs what the metrics came to. Every process takes part, also one that had no sample."""
        values = {f"{self.split}/loss": float(self.split_loss.compute())}
        values |= {f"{self.split}/{key}": value for key, value in self.compute_metrics().items()}
        shown = {key: value for key, value in values.items() if key == self.monitor}
        self.log_dict(shown, prog_bar=True)
        self.log_dict({key: value for key, value in values.items() if key not in shown})

    def configure_optimizers(self) -> Any:
        """The optimizer over the network's parameters, and its schedule, stepped every step."""
        optimizer = self.make_optimizer(self.model)
        schedule = self.make_schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what `python eval.py ckpt_path=...` needs: the configuration and the names of classes and keypoints."""
        checkpoint["config"] = self.config
        checkpoint["config_source"] = self.config_source
        checkpoint["labels"] = dataclasses.asdict(self.labels)
        loss = self.train_loss
        checkpoint["train_loss"] = {"mean_value": loss.mean_value.cpu(), "weight": loss.weight.cpu()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the mean loss of an epoch that is resumed within."""
        if saved := checkpoint.get("train_loss"):
            self.train_loss.mean_value = saved["mean_value"].to(self.device)
            self.train_loss.weight = saved["weight"].to(self.device)
            self.train_loss._update_count = 1
