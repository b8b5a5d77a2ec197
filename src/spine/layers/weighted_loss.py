"""Sum of several losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class WeightedLoss(nn.Module):
    """The weighted sum of losses that are called with the same arguments."""

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float]):
        super().__init__()
        self.losses, self.weights = nn.ModuleList(losses), tuple(weights)

    def forward(self, *arguments: Tensor) -> Tensor:
        """Returns the loss ()."""
        parts = [weight * loss(*arguments) for loss, weight in zip(self.losses, self.weights, strict=True)]
        return torch.stack(parts).sum()
