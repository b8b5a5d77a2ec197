"""Batch norm: a report for runs with several processes, and the re-estimation of its statistics after training."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import ModelParallelStrategy
from torch.nn.modules.batchnorm import _BatchNorm

from spine.checkpoints.run_checkpoint import read_checkpoint
from spine.data.data_module import DataModule
from spine.errors import InputError
from spine.tasks.base import Batch, Task
from spine.training.checkpoints import AtomicCheckpointIO

log = logging.getLogger(__name__)


REESTIMATED = "reestimated.ckpt"
RESUMING = ("optimizer_states", "lr_schedulers", "loops", "callbacks")  # of a checkpoint, which no evaluation needs


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


def require_batch_norm(task: Task) -> None:
    """Raises InputError if the network has no statistics of batch norm to estimate."""
    if not _layers(task):
        raise InputError("callbacks.reestimate_batch_norm is set, but the network has no batch norm. Set it to null.")


@torch.no_grad()
def reestimate_batch_norm(trainer: pl.Trainer, task: Task, data: DataModule, checkpoint: Path, batches: int) -> Path:
    """Estimates the statistics of batch norm again, from `batches` training batches of all processes together.

    Running statistics lag behind the weights. The weights of `checkpoint` are used; the statistics become
    the mean over the batches, which the following epoch of the training would have. Writes a checkpoint
    without the state of the optimizer next to `checkpoint`, and returns its path. All processes must call this.
    """
    content = read_checkpoint(checkpoint)
    task.load_state_dict(content["state_dict"])
    device, layers = trainer.strategy.root_device, _layers(task)
    momenta = [layer.momentum for layer in layers]
    task.to(device).eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
        layer.momentum = None  # the mean over all batches
    own_batches = -(-batches // trainer.world_size)
    for batch in itertools.islice(_training_batches(data, trainer), own_batches):
        with trainer.precision_plugin.forward_context():
            task.evaluate_batch(task.transfer_batch_to_device(batch, device, 0))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        if trainer.world_size > 1:
            _average(layer, trainer.world_size)
    task.eval()
    path = checkpoint.with_name(REESTIMATED)
    if trainer.is_global_zero:
        kept = {key: value for key, value in content.items() if key not in RESUMING}
        AtomicCheckpointIO().save_checkpoint({**kept, "state_dict": task.state_dict()}, path)
    trainer.strategy.barrier()
    return path


def _layers(task: Task) -> list[_BatchNorm]:
    return [layer for layer in task.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]


def _training_batches(data: DataModule, trainer: pl.Trainer) -> Iterator[Batch]:
    """Yields training batches without end, starting with the epoch after the last one."""
    loader = data.loader("train", training=True)
    for epoch in itertools.count(trainer.current_epoch):
        loader.batch_sampler.set_epoch(epoch)
        yield from loader


def _average(layer: _BatchNorm, processes: int) -> None:
    """Averages the statistics of a layer over all processes."""
    assert layer.running_mean is not None and layer.running_var is not None
    for statistic in (layer.running_mean, layer.running_var):
        dist.all_reduce(statistic)
        statistic /= processes
