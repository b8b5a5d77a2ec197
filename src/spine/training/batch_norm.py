"""Callback that reports batch norm in runs with several processes."""

from __future__ import annotations

import logging

import pytorch_lightning as pl
from pytorch_lightning.strategies import ModelParallelStrategy
from torch.nn.modules.batchnorm import _BatchNorm

from spine.errors import InputError

log = logging.getLogger(__name__)


class BatchNormReport(pl.Callback):
    """Logs that batch norm depends on the number of processes, unless it is synchronized."""

    def __init__(self, synchronized: bool):
        """`synchronized`: trainer.sync_batchnorm."""
        self.synchronized = synchronized

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raises InputError with fsdp, which does not keep the running statistics of the processes equal."""
        if stage != "fit" or trainer.world_size == 1:
            return
        if not any(isinstance(layer, _BatchNorm) for layer in pl_module.modules()):
            return
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise InputError(
                "The network has batch norm, which trainer.strategy=fsdp does not support on several devices. Use "
                "trainer.strategy=ddp, or a network and a head without batch norm."
            )
        if not self.synchronized:
            log.info(
                "The network has batch norm: each of the %d processes normalizes with the statistics of its own batch, so that the "
                "results depend on the number of processes. On GPUs, trainer.sync_batchnorm=true uses those of all processes.",
                trainer.world_size,
            )
