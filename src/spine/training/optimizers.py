"""Optimizers and their parameter groups."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from spine.errors import InputError

# never decayed, whatever their shape
UNDECAYED = ("cls_token", "mask_token", "pos_embed", "relative_position_bias_table", "mask_pixel", "scale")


def parameter_groups(model: nn.Module, lr: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Groups for an optimizer: vectors, biases, scales, tokens and positions do not decay, lower layers learn slower.

    The head and the backbone's last norm learn at `lr`; the groups below, from top to stem, at lr * layer_decay,
    lr * layer_decay^2, ... (BEiT's code, `optim_factory.py`). Frozen parameters are left out.
    """
    if not 0 < layer_decay <= 1:
        raise InputError(f"optimizer.layer_decay is {layer_decay}; it lies in (0, 1], and 1 means the same rate for every layer.")
    prefixes = model.backbone.layer_groups()  # type: ignore[union-attr,operator]
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        below_top = 0
        if layer_decay < 1 and name.startswith("backbone."):
            own = name.removeprefix("backbone.")
            level = next(i for i, group in enumerate(prefixes) if own.startswith(group))
            below_top = len(prefixes) - 1 - level
        is_vector = parameter.ndim < 2 or parameter[0].numel() == 1  # (C, 1, 1) scales the channels of a map
        decayed = not is_vector and name.rsplit(".", 1)[-1] not in UNDECAYED
        group = groups.setdefault(
            (below_top, decayed),
            {"params": [], "lr": lr * layer_decay**below_top, "weight_decay": weight_decay if decayed else 0.0},
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
