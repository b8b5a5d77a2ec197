"""Learning rate schedules, stepped after every optimizer step."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from spine.errors import InputError


def _with_warmup(optimizer: Optimizer, total_steps: int, warmup: float, decay: Callable[[float], float]) -> LambdaLR:
    """Linear warm-up over the fraction `warmup` of all steps, then `decay`.

    `decay`: factor of the learning rate as a function of the progress after the warm-up, in 0..1.
    """
    if not 0 <= warmup < 1:
        raise InputError(f"schedule.warmup is {warmup}; it must be a fraction of all steps, 0 or more and below 1.")
    warmup_steps = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return decay(min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps)))

    return LambdaLR(optimizer, factor)


def cosine(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.05, min_lr_ratio: float = 0.0) -> LambdaLR:
    """Linear warm-up, then cosine decay to `min_lr_ratio` times the learning rate.

    Source: Loshchilov and Hutter, arXiv 1608.03983.
    """
    return _with_warmup(
        optimizer, total_steps, warmup, lambda t: min_lr_ratio + (1 - min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * t))
    )


def poly(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.01, power: float = 1.0) -> LambdaLR:
    """Linear warm-up, then polynomial decay (1 - t) ** power, which is common in segmentation."""
    return _with_warmup(optimizer, total_steps, warmup, lambda t: (1 - t) ** power)


def constant(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.0) -> LambdaLR:
    """Linear warm-up, then a constant learning rate."""
    return _with_warmup(optimizer, total_steps, warmup, lambda t: 1.0)
