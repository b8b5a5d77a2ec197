"""Callback that makes optimizer steps independent of the number of processes and of the size of a micro-batch."""

from __future__ import annotations

from typing import TypedDict

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from spine.data.data_module import check_step_size
from spine.data.sampler import count_micro_batches
from spine.errors import InputError
from spine.models.sharding import local_part
from spine.option_types import Config
from spine.tasks.base import Batch, Task
from spine.training.checkpoints import CheckpointContent

KEY = "step_size"  # in checkpoints


class StepSize(TypedDict):
    """Size of an optimizer step."""

    samples: int  # of all processes together
    batches: int  # of each process


def count_step_samples(config: Config, processes: int) -> int:
    """Returns the number of samples in an optimizer step of a plain configuration, on all processes together."""
    dataset, accumulated = config["dataset"], config["trainer"].get("accumulate_grad_batches", 1)
    return dataset.get("global_batch_size") or dataset["batch_size"] * processes * accumulated


class GlobalBatch(pl.Callback):
    """Makes every optimizer step equal to a step on one batch of `size` samples, if `size` is given.

    It sets the number of micro-batches that are accumulated. Their losses are means over different
    numbers of images (or of labeled pixels), so each is weighted with its number; the weighted sum
    divided by the sum of the weights is the loss of the whole batch. If all weights are equal,
    nothing is changed.

    With or without `size`, checkpoints store the size of a step. A checkpoint resumes with any
    division of the same global batch, and is refused if its steps have another size.
    """

    def __init__(self, size: int | None, batch_size: int):
        """`size`: dataset.global_batch_size. `batch_size`: the largest micro-batch of a process."""
        self.size, self.batch_size = size, batch_size
        self.weights: Tensor | None = None  # () sum of the weights of a step on this process, if they depend on the labels

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Sets the number of batches that are accumulated. Limits of the Trainer become numbers of whole steps."""
        if stage != "fit" or self.size is None:
            return
        if self.size < trainer.world_size:
            raise InputError(
                f"dataset.global_batch_size is {self.size}, fewer than one sample for each of {trainer.world_size} processes. "
                f"Set it to at least {trainer.world_size}, or use fewer devices."
            )
        batches = count_micro_batches(self.size, self.batch_size, trainer.world_size)
        trainer.accumulate_grad_batches = batches
        samples = len(trainer.datamodule.transformed("train", training=True))  # type: ignore[attr-defined]
        check_step_size(samples, self.size)
        steps = samples // self.size
        limit = _steps(trainer.limit_train_batches, steps)
        trainer.limit_train_batches = limit * batches
        if isinstance(trainer.val_check_interval, int) or trainer.val_check_interval < 1:
            trainer.val_check_interval = _steps(trainer.val_check_interval, min(limit, steps)) * batches

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int) -> None:
        """Sets the weight of the batch in its step. Its mean over the batches of the step is 1, if all pixels are labeled."""
        assert isinstance(pl_module, Task)
        parts = trainer.world_size * trainer.accumulate_grad_batches
        if self.size is None or parts == 1:
            return
        weight = pl_module.loss_weight(batch) * parts / self.size
        pl_module.step_weight = None if weight == 1.0 and not isinstance(weight, Tensor) else weight
        if isinstance(weight, Tensor):
            self.weights = weight if self.weights is None else self.weights + weight

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Divides the gradients by the mean weight of the step, if it depends on the labels. Nothing waits for the device."""
        if self.weights is None:
            return
        total, self.weights = self.weights.clone(), None
        if trainer.world_size > 1:
            dist.all_reduce(total)
        parts = trainer.world_size * trainer.accumulate_grad_batches
        factor = parts / total.clamp(min=torch.finfo(total.dtype).tiny * parts)  # without any label, the gradients are 0
        gradients = [local_part(parameter.grad) for parameter in pl_module.parameters() if parameter.grad is not None]
        torch._foreach_mul_(gradients, factor)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: CheckpointContent) -> None:
        """Adds the size of a step."""
        checkpoint[KEY] = self._step_size(trainer)

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: CheckpointContent) -> None:
        """Converts the progress of Lightning's loops to the micro-batches of this run.

        Raises InputError if the steps of the checkpoint have another size.
        """
        saved: StepSize | None = checkpoint.get(KEY)
        if saved is None or trainer.state.fn != "fit":
            return
        own = self._step_size(trainer)
        if own["samples"] != saved["samples"]:
            raise InputError(
                f"The optimizer steps of the checkpoint have {saved['samples']} samples, those of this run {own['samples']}. "
                f"Resume with dataset.global_batch_size={saved['samples']}, or start another run from its weights with "
                f"backbone.weights."
            )
        if self.size is None and own != saved:
            raise InputError(
                f"The checkpoint accumulates {saved['batches']} batches in an optimizer step, this run {own['batches']}. Resume "
                f"with trainer.accumulate_grad_batches={saved['batches']}, or set dataset.global_batch_size={saved['samples']}."
            )
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            ready = counts["ready"] // saved["batches"] * own["batches"]
            counts.update({key: ready - (counts["ready"] - count) for key, count in counts.items()})

    def _step_size(self, trainer: pl.Trainer) -> StepSize:
        batches = trainer.accumulate_grad_batches
        samples = self.size or self.batch_size * trainer.world_size * batches
        return {"samples": samples, "batches": batches}


def _steps(limit: int | float, steps: int) -> int:
    """Returns a limit of Lightning, a number or a fraction of `steps`, as a number of steps."""
    return limit if isinstance(limit, int) else int(limit * steps)
