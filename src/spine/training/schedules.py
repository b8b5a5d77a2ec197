"""Learning rate schedules, counted in steps."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from spine.errors import InputError


def _scaled(optimizer: Optimizer, total_steps: int, warmup: float, after: Callable[[float], float]) -> LambdaLR:
    """Linear warm-up over a share of all steps, then `after`(progress in 0..1)."""
    if not 0 <= warmup < 1:
        raise InputError(f"schedule.warmup is {warmup}; it is the share of all steps, in [0, 1).")
    warm_steps = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < warm_steps:
            return (step + 1) / (warm_steps + 1)
        return after(min(1.0, (step - warm_steps) / max(1, total_steps - warm_steps)))

    return LambdaLR(optimizer, factor)


def cosine(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.05, min_lr_ratio: float = 0.0) -> LambdaLR:
    """Half a cosine from the full rate to `min_lr_ratio` of it (Loshchilov and Hutter, arXiv 1608.03983), behind a warm-up."""
    return _scaled(
        optimizer, total_steps, warmup, lambda t: min_lr_ratio + (1 - min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * t))
    )


def poly(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.01, power: float = 1.0) -> LambdaLR:
    """(1 - t) ** power, as segmentation is usually trained, behind a warm-up."""
    return _scaled(optimizer, total_steps, warmup, lambda t: (1 - t) ** power)


def constant(optimizer: Optimizer, total_steps: int, *, warmup: float = 0.0) -> LambdaLR:
    """The full rate throughout, behind a warm-up."""
    return _scaled(optimizer, total_steps, warmup, lambda t: 1.0)
