"""Callback that freezes parts of the network, for the whole training or for its first epochs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import pytorch_lightning as pl
from torch import nn
from torch.optim import Optimizer

from spine.errors import InputError


class Freeze(pl.Callback):
    """Freezes the parameters that match one of `names`, until an epoch or for the whole training.

    Modules all of whose parameters are frozen are in evaluation mode: batch norm keeps its statistics,
    and dropout and drop path are off.

    Parameters that are unfrozen later belong to the optimizer from the start, so that a run resumes
    exactly; without gradients, an optimizer leaves them as they are. With several processes, DDP needs
    the gradients of all its parameters in every step: they are computed and dropped.
    """

    def __init__(self, names: Sequence[str], until_epoch: int | None = None):
        """`names`: regular expressions, which match anywhere in a name such as `backbone.blocks.0.norm1.weight`.

        `until_epoch`: number of epochs in which the parameters are frozen; None for all. Raises InputError if an
        expression is not valid.
        """
        self.until_epoch = until_epoch
        try:
            self.patterns = [re.compile(name) for name in names]
        except re.error as error:
            raise InputError(f"callbacks.freeze.names: '{error.pattern!s}' is not a regular expression ({error}).") from error
        self.parameters: list[nn.Parameter] = []
        self.modules: list[nn.Module] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Finds the parameters. Those that are frozen for the whole training do not get into the optimizer.

        Raises InputError if an expression matches none, or if nothing is left to train.
        """
        if stage != "fit":
            return
        network = cast(nn.Module, pl_module.model)
        named = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        for pattern in self.patterns:
            if not any(map(pattern.search, named)):
                examples = ", ".join(list(named)[:3])
                raise InputError(
                    f"callbacks.freeze.names: '{pattern.pattern}' matches no parameter. Their names are such as {examples}."
                )
        self.parameters = [p for name, p in named.items() if any(pattern.search(name) for pattern in self.patterns)]
        if len(self.parameters) == len(named):
            raise InputError("callbacks.freeze.names match all parameters: nothing is left to train.")
        if self.until_epoch is None:
            for parameter in self.parameters:
                parameter.requires_grad_(False)
        frozen = {id(parameter) for parameter in self.parameters}
        fixed = {id(parameter) for parameter in network.parameters() if not parameter.requires_grad}
        self.modules = [
            module
            for module in network.modules()
            if any(id(p) in frozen for p in module.parameters()) and all(id(p) in frozen | fixed for p in module.parameters())
        ]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Freezes, also in a run that is resumed within an epoch."""
        self._apply(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Unfreezes at the start of an epoch."""
        self._apply(trainer)

    def _frozen(self, trainer: pl.Trainer) -> bool:
        return self.until_epoch is None or trainer.current_epoch < self.until_epoch

    def _apply(self, trainer: pl.Trainer) -> None:
        frozen = self._frozen(trainer)
        if trainer.world_size == 1 or self.until_epoch is None:
            for parameter in self.parameters:
                parameter.requires_grad_(not frozen)
        for module in self.modules:
            module.training = not frozen

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Drops the gradients of frozen parameters."""
        if self._frozen(trainer):
            for parameter in self.parameters:
                parameter.grad = None
