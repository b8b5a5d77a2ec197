"""The random state of every process travels in the checkpoint: dropout, drop path and random bases go on where they were."""

from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

log = logging.getLogger(__name__)
KEY = "random_states"


def capture() -> dict[str, Any]:
    """The states of the generators of torch (CPU and the current GPU), NumPy and Python, as weights_only loading takes them."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore(state: dict[str, Any]) -> None:
    """Sets what `capture` returned."""
    torch.set_rng_state(state["torch"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class RandomState(pl.Callback):
    """Saves and restores the random state of each process, and gives each process a stream of its own."""

    def __init__(self, seed: int):
        self.seed = seed
        self.loaded: list[dict[str, Any]] | None = None
        self.before_validation: dict[str, Any] | None = None  # set while a validation runs within a training

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the state of every process to the checkpoint; Lightning calls this on all of them."""
        own = self.before_validation or capture()
        states: list[Any] = [own]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, own)
        checkpoint[KEY] = states

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the states until training starts."""
        self.loaded = checkpoint.get(KEY)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sets this process's state: the saved one, or a fresh one that differs between processes."""
        if self.loaded is not None and len(self.loaded) == trainer.world_size:
            restore(self.loaded[trainer.global_rank])
        elif self.loaded is not None:
            log.warning(
                "The checkpoint holds the random state of %d processes and this run has %d: dropout draws anew.",
                len(self.loaded),
                trainer.world_size,
            )
            self._reseed(trainer)
        elif trainer.global_rank > 0:  # process 0 goes on with the stream of the seed, as a single process does
            self._reseed(trainer)
        self.loaded = None

    def _reseed(self, trainer: pl.Trainer) -> None:
        numbers = np.random.SeedSequence((self.seed, trainer.global_rank, trainer.global_step)).generate_state(1)
        pl.seed_everything(int(numbers[0]), verbose=False)
