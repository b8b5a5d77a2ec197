"""Callback that augments whole training batches on their device, such as mixup."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl

from spine.components import task_spec
from spine.errors import InputError
from spine.interfaces import BatchTransform
from spine.tasks.base import Batch, Task

KEY = 0xBA7C4  # in place of the copy of a sample: distinguishes the random numbers of batches from those of samples


class BatchAugmentation(pl.Callback):
    """Applies a BatchTransform to every training batch after its transfer to the device.

    The random numbers are a function of the seed, the epoch and the position of the batch, so that
    a resumed run has the same ones.
    """

    def __init__(self, transform: BatchTransform, seed: int):
        self.transform, self.seed = transform, seed

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raises InputError if the task cannot train with mixed labels."""
        assert isinstance(pl_module, Task)
        if not task_spec(pl_module.name).takes_targets:
            raise InputError(f"Task '{pl_module.name}' does not train with mixed labels; leave BatchAugmentation out.")

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int) -> None:
        """Changes the batch, except in the last `off_epochs` epochs."""
        assert isinstance(pl_module, Task)
        if "spare" not in batch and is_on(self.transform, trainer.current_epoch, trainer.max_epochs):
            rng = batch_generator(self.seed, epoch_of_samples(trainer), position_of(trainer, batch_idx))
            batch.update(self.transform(batch, len(pl_module.labels.classes), rng))


def is_on(transform: BatchTransform, epoch: int, max_epochs: int | None) -> bool:
    """Returns whether a transform is applied in an epoch, counted from 0."""
    return not transform.off_epochs or max_epochs is None or epoch < max_epochs - transform.off_epochs


def epoch_of_samples(trainer: pl.Trainer) -> int:
    """Returns the epoch that determines random numbers: 0 if a few batches are overfitted, which stay the same."""
    return 0 if trainer.overfit_batches > 0 else trainer.current_epoch  # type: ignore[attr-defined]


def position_of(trainer: pl.Trainer, batch_idx: int) -> int:
    """Returns the position in the epoch of a batch of this process, among those of all processes."""
    return batch_idx * trainer.world_size + trainer.global_rank


def batch_generator(seed: int, epoch: int, position: int) -> np.random.Generator:
    """Returns the random generator of a batch, by its epoch (from 0) and its position in the epoch."""
    return np.random.default_rng((seed, epoch, position, KEY))
