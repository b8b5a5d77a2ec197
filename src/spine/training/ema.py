"""Callback that keeps a moving average of the weights (EMA), which is evaluated and saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn

from spine.checkpoints.run_checkpoint import TRAINED_WEIGHTS
from spine.errors import InputError
from spine.training.checkpoints import CheckpointContent

PREFIX = "model."  # of the network in a task
Tensors = dict[str, Tensor]


class MovingAverage(pl.Callback):
    """Averages weights and buffers of the network after every optimizer step, with timm's values (`ModelEmaV3`).

    The first step copies them. Later steps are `average = decay * average + (1 - decay) * weights`.
    Buffers with floating point values, such as the statistics of batch norm, are averaged too; others are
    copied. With `warmup`, step n + 1 has the decay 1 - (1 + n / gamma) ** -power, at most `decay`.

    Validations evaluate the average. In checkpoints, `state_dict` holds the average and
    `current_model_state` the weights of the optimizer, as with Lightning's `WeightAveraging`. That
    callback is not used: it copies and averages the whole task, evaluates its last average instead of
    the best checkpoint after training, and saves the wrong weights if a validation is interrupted.
    """

    def __init__(self, decay: float = 0.9999, warmup: bool = False, warmup_gamma: float = 1.0, warmup_power: float = 2 / 3):
        """`warmup_gamma`, `warmup_power`: of the warm-up of the decay; see `spine.training.ema.MovingAverage`."""
        self.decay, self.warmup, self.gamma, self.power = decay, warmup, warmup_gamma, warmup_power
        self.updates = 0
        self.step = 0  # of the last update
        self.average: Tensors | None = None  # by name in the network
        self.trained: Tensors | None = None  # the weights of the optimizer, while the network holds the average

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raises InputError with fsdp."""
        if stage == "fit" and isinstance(trainer.strategy, ModelParallelStrategy):
            raise InputError(
                "callbacks.ema does not support trainer.strategy=fsdp. Use trainer.strategy=ddp, or callbacks.ema=null."
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts with the weights of the network, or continues with the average of the checkpoint."""
        start, network = self.average or {}, _tensors(pl_module)
        self.average = {name: start.get(name, tensor).to(tensor.device, copy=True) for name, tensor in network.items()}

    def decay_of(self, updates: int) -> float:
        """Returns the decay of the next update, after `updates` earlier ones."""
        if updates == 0:
            return 0.0
        if not self.warmup:
            return self.decay
        return min(self.decay, 1 - (1 + updates / self.gamma) ** -self.power)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        """Updates the average after an optimizer step."""
        if trainer.global_step <= self.step:  # gradients are being accumulated
            return
        assert self.average is not None
        update(self.average, _tensors(pl_module), self.decay_of(self.updates))
        self.updates, self.step = self.updates + 1, trainer.global_step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluates the average, in validations during training."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._use_average(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continues with the weights of the optimizer."""
        if self.trained is not None and trainer.state.fn == "fit":
            _copy(self.trained, _tensors(pl_module))
            self.trained = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the average in the network."""
        self._use_average(pl_module)

    def _use_average(self, module: pl.LightningModule) -> None:
        assert self.average is not None
        if self.trained is None:
            self.trained = {name: tensor.clone() for name, tensor in _tensors(module).items()}
        _copy(self.average, _tensors(module))

    def state_dict(self) -> dict[str, int]:
        """Returns the number of updates, for the checkpoint."""
        return {"updates": self.updates, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restores the number of updates."""
        self.updates, self.step = state_dict["updates"], state_dict["step"]

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: CheckpointContent) -> None:
        """Saves the average in `state_dict`, and the weights of the optimizer besides."""
        if self.average is None:
            return
        trained = self.trained if self.trained is not None else _tensors(pl_module)
        checkpoint[TRAINED_WEIGHTS] = {f"{PREFIX}{name}": tensor for name, tensor in trained.items()}
        checkpoint["state_dict"] = checkpoint["state_dict"] | {f"{PREFIX}{name}": tensor for name, tensor in self.average.items()}

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: CheckpointContent) -> None:
        """Takes the average from `state_dict`, and the weights of the network from those of the optimizer."""
        if trainer.state.fn != "fit" or TRAINED_WEIGHTS not in checkpoint:
            return
        saved = checkpoint["state_dict"]
        self.average = {name.removeprefix(PREFIX): tensor for name, tensor in saved.items() if name.startswith(PREFIX)}
        trained = {name.removeprefix(PREFIX): tensor for name, tensor in checkpoint[TRAINED_WEIGHTS].items()}
        cast(nn.Module, pl_module.model).load_state_dict(trained)


@torch.no_grad()
def update(average: Tensors, tensors: Mapping[str, Tensor], decay: float) -> None:
    """Updates an average in place: tensors with floating point values are averaged, others are copied."""
    averaged = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in averaged], [tensors[name] for name in averaged], weight=1 - decay)
    _copy({name: tensor for name, tensor in tensors.items() if name not in averaged}, average)


def _tensors(module: pl.LightningModule) -> Tensors:
    """Returns weights and buffers of the network of a task. They share memory with it."""
    return cast(nn.Module, module.model).state_dict()


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in source.items():
        target[name].copy_(tensor)
