"""Optimizers of a network."""

from __future__ import annotations

from typing import Any, Unpack

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from spine.errors import InputError
from spine.training.parameter_groups import GroupOptions, parameter_groups
from spine.training.update_rules import LAMB, LARS, Lion, TensorFlowRMSprop


class OptimizerOptions(GroupOptions, total=False):
    """Options that every optimizer takes, in addition to those of `parameter_groups`."""

    lr_batch_size: int | None  # the size of an optimizer step for which `lr` is given; None: `lr` does not depend on it
    global_batch_size: int | None  # the actual size: samples of all processes together


def adamw(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    **options: Unpack[OptimizerOptions],
) -> Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101). On GPUs, a fused kernel updates the parameters."""
    groups, lr = _groups(model, lr, weight_decay, options)
    fused = all(parameter.is_cuda for group in groups for parameter in group["params"])
    optimizer = AdamW(groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=fused or None)
    optimizer._step_supports_amp_scaling = False  # True would forbid gradient clipping
    return optimizer


def sgd(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 1e-4,
    momentum: float = 0.9,
    nesterov: bool = True,
    **options: Unpack[OptimizerOptions],
) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    groups, lr = _groups(model, lr, weight_decay, options)
    return SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


def rmsprop(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 1e-5,
    alpha: float = 0.9,
    momentum: float = 0.9,
    eps: float = 1e-3,
    **options: Unpack[OptimizerOptions],
) -> Optimizer:
    """RMSprop as in TensorFlow, which trained the MobileNets. `alpha`: decay of the mean square."""
    groups, lr = _groups(model, lr, weight_decay, options)
    return TensorFlowRMSprop(groups, {"lr": lr, "alpha": alpha, "momentum": momentum, "eps": eps})


def lars(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    trust_coefficient: float = 0.001,
    **options: Unpack[OptimizerOptions],
) -> Optimizer:
    """LARS (You et al., arXiv 1708.03888), as in MAE's linear probe."""
    groups, lr = _groups(model, lr, weight_decay, options)
    return LARS(groups, {"lr": lr, "momentum": momentum, "trust_coefficient": trust_coefficient})


def lamb(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.02,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    **options: Unpack[OptimizerOptions],
) -> Optimizer:
    """LAMB (You et al., arXiv 1904.00962)."""
    groups, lr = _groups(model, lr, weight_decay, options)
    return LAMB(groups, {"lr": lr, "betas": tuple(betas), "eps": eps})


def lion(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.5,
    betas: tuple[float, float] = (0.9, 0.99),
    **options: Unpack[OptimizerOptions],
) -> Optimizer:
    """Lion (Chen et al., arXiv 2302.06675). `lr` is 3 to 10 times lower than AdamW's, `weight_decay` higher by the same factor."""
    groups, lr = _groups(model, lr, weight_decay, options)
    return Lion(groups, {"lr": lr, "betas": tuple(betas)})


def scale_lr(lr: float, lr_batch_size: int | None, global_batch_size: int | None) -> float:
    """Returns the learning rate for steps of `global_batch_size` samples, if `lr` is for steps of `lr_batch_size`.

    The rate is proportional to the size. Raises InputError if the size of the steps is not known.
    """
    if lr_batch_size is None:
        return lr
    if global_batch_size is None:
        raise InputError(f"optimizer.lr_batch_size is {lr_batch_size}, which needs global_batch_size, the size of the steps.")
    return lr * global_batch_size / lr_batch_size


def _groups(model: nn.Module, lr: float, weight_decay: float, options: OptimizerOptions) -> tuple[list[dict[str, Any]], float]:
    """Returns the groups of an optimizer, without the names of the parameters, and the actual learning rate."""
    own: GroupOptions = {key: value for key, value in options.items() if key in GroupOptions.__annotations__}  # type: ignore[assignment]
    lr = scale_lr(lr, options.get("lr_batch_size"), options.get("global_batch_size"))
    groups = parameter_groups(model, lr, weight_decay, **own)
    return [{key: value for key, value in group.items() if key != "names"} for group in groups], lr
