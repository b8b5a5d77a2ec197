"""Optimizers and their parameter groups."""

from __future__ import annotations

from typing import cast

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from spine.errors import InputError
from spine.interfaces import Backbone

# last parts of parameter names that get no weight decay, whatever the shape
NO_WEIGHT_DECAY = ("cls_token", "mask_token", "pos_embed", "relative_position_bias_table", "mask_pixel", "scale")


def parameter_groups(model: nn.Module, lr: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Returns the parameter groups of a network for an optimizer.

    Vectors, biases, scales, tokens and position embeddings get no weight decay. With `layer_decay`
    < 1, lower layers get lower learning rates: `lr` for the head and the last norm of the backbone,
    then lr * layer_decay, lr * layer_decay^2, ... for the layer groups of the backbone from the
    last one to the stem (BEiT's code, `optim_factory.py`). Frozen parameters are left out. Raises
    InputError if `layer_decay` is not in (0, 1].
    """
    if not 0 < layer_decay <= 1:
        raise InputError(
            f"optimizer.layer_decay is {layer_decay}; it must be above 0 and at most 1. 1 gives all layers the same learning rate."
        )
    if layer_decay < 1 and not isinstance(getattr(model, "backbone", None), Backbone):
        raise InputError(
            f"optimizer.layer_decay is {layer_decay}, but this network has no backbone, whose layers it is for. Use 1.0."
        )
    layer_groups = cast(Backbone, model.backbone).layer_groups() if layer_decay < 1 else []
    groups: dict[tuple[int, bool], dict] = {}  # by depth below the top and whether weight decay applies
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = 0
        if layer_decay < 1 and name.startswith("backbone."):
            own_name = name.removeprefix("backbone.")
            level = next(i for i, prefixes in enumerate(layer_groups) if own_name.startswith(prefixes))
            depth = len(layer_groups) - 1 - level
        is_vector = parameter.ndim < 2 or parameter[0].numel() == 1  # (C, 1, 1) scales the channels of a feature map
        decayed = not is_vector and name.rsplit(".", 1)[-1] not in NO_WEIGHT_DECAY
        group = groups.setdefault(
            (depth, decayed),
            {"params": [], "lr": lr * layer_decay**depth, "weight_decay": weight_decay if decayed else 0.0},
        )
        group["params"].append(parameter)
    return list(groups.values())


def adamw(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    layer_decay: float = 1.0,
) -> Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101)."""
    return AdamW(parameter_groups(model, lr, weight_decay, layer_decay), lr=lr, betas=(betas[0], betas[1]), eps=eps)


def sgd(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 1e-4,
    momentum: float = 0.9,
    nesterov: bool = True,
    layer_decay: float = 1.0,
) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return SGD(parameter_groups(model, lr, weight_decay, layer_decay), lr=lr, momentum=momentum, nesterov=nesterov)
