"""Stochastic depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spine.errors import InputError


class DropPath(nn.Module):
    """Stochastic depth per sample (Huang et al., arXiv 1603.09382).

    In training, a residual branch is dropped with probability `rate`.
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise InputError(f"drop_path_rate is {rate}; it must be in [0, 1).")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...). Samples that are kept are scaled by 1 / (1 - rate)."""
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), device=x.device) >= self.rate
        return x * (keep.to(x.dtype) / (1.0 - self.rate))

    def extra_repr(self) -> str:
        """Returns the rate, for `repr`."""
        return f"rate={self.rate:.3f}"


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Returns the rates of `depth` blocks, which increase linearly from 0 to `rate`."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
