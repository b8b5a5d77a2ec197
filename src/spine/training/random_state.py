"""Saves the states of the random generators in checkpoints.

In a resumed run, dropout, drop path and random bases continue with the same random numbers.
"""

from __future__ import annotations

import logging
import random
from typing import NotRequired, TypedDict

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from spine.training.checkpoints import CheckpointContent

log = logging.getLogger(__name__)
KEY = "random_states"  # in checkpoints: a list with the state of each process


class GeneratorStates(TypedDict):
    """States of the global random generators of a process.

    All values can be loaded with weights_only.
    """

    torch: Tensor
    numpy: tuple[str, list[int], int, int, float]  # algorithm, keys, position, has_gauss, cached Gaussian
    python: tuple[int, list[int], float | None]  # version, internal state, next Gaussian
    cuda: NotRequired[Tensor]  # of the current GPU


def capture() -> GeneratorStates:
    """Returns the states of the generators of torch (CPU and current GPU), NumPy and Python."""
    algorithm, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    states: GeneratorStates = {
        "torch": torch.get_rng_state(),
        "numpy": (str(algorithm), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)),
        "python": (version, list(internal), gauss),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore(states: GeneratorStates) -> None:
    """Sets the states that `capture` returned."""
    torch.set_rng_state(states["torch"])
    algorithm, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((algorithm, np.array(keys, np.uint32), position, has_gauss, cached))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


class RandomState(pl.Callback):
    """Saves and restores the random state of each process.

    Each process gets a different random sequence.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self.loaded: list[GeneratorStates] | None = None
        self.before_validation: GeneratorStates | None = None  # set during a validation within training

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: CheckpointContent) -> None:
        """Adds the states of all processes to the checkpoint.

        Lightning calls this on every process.
        """
        own = self.before_validation or capture()
        states: list[GeneratorStates | None] = [own]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, own)
        checkpoint[KEY] = states

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: CheckpointContent) -> None:
        """Stores the states of the checkpoint until training starts."""
        self.loaded = checkpoint.get(KEY)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sets the saved random state of this process.

        A process that has none gets a new one. At the start of a run, process 0 keeps the state of
        the seed, as a run on a single process does.
        """
        saved, rank = self.loaded, trainer.global_rank
        if saved is not None and rank < len(saved):
            restore(saved[rank])
        elif rank > 0:
            self._reseed(trainer)
        if saved is not None and len(saved) != trainer.world_size:
            log.info("The checkpoint was written by %d processes, this run has %d.", len(saved), trainer.world_size)
        self.loaded = None

    def _reseed(self, trainer: pl.Trainer) -> None:
        seeds = np.random.SeedSequence((self.seed, trainer.global_rank, trainer.global_step)).generate_state(1)
        pl.seed_everything(int(seeds[0]), verbose=False)
