"""ParseNet: Looking Wider to See Better (Liu et al., arXiv 1506.04579).

The average of the whole map is put beside every local feature. Their lengths differ by orders of magnitude, so both are brought to
length one and given a learned scale a channel (section 3.3). As published it stands on `backbone=vgg16 backbone.variant=largefov`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Features, FeatureSpec, Head
from spine.layers.precision import at_least_float32
from spine.task_spec import HeadInput

EPS = 1e-10  # added to the sum of squares, under the root
SCALE = 10.0  # at the start; features of length one are too small to learn from


class L2Norm(nn.Module):
    """Every position's features divided by their length, times a learned scale a channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels, 1, 1), SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        wide = at_least_float32(x)  # the squares of float16 overflow, and so does the inverse of a length near zero
        unit = wide * (wide.square().sum(1, keepdim=True) + EPS).rsqrt()
        return unit.to(torch.promote_types(x.dtype, self.scale.dtype)) * self.scale


class ParseNet(Head):
    """Local and global context of one map, joined before the classifier (early fusion) or as the sum of two classifiers (late)."""

    reads: ClassVar[HeadInput] = "maps"

    @classmethod
    def choose_levels(cls, spec: FeatureSpec) -> tuple[int, ...]:
        """The finest level where all have exchanged (HRNet), else the coarsest."""
        return (0,) if spec.fused else (-1,)

    def __init__(self, spec: FeatureSpec, num_outputs: int, *, fusion: str = "early"):
        super().__init__()
        if fusion not in ("early", "late"):
            raise InputError(f"head.fusion is '{fusion}'; choose early or late.")
        channels = spec.levels[-1].channels
        self.local_norm = L2Norm(channels)
        self.global_norm = L2Norm(channels)
        self.late = fusion == "late"
        self.score = nn.Conv2d(channels if self.late else 2 * channels, num_outputs, 1)
        self.global_score = nn.Conv2d(channels, num_outputs, 1) if self.late else None
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Features) -> Tensor:
        """Features -> logits (B, classes, h, w) at the stride of the map that is read."""
        x = features.maps[-1]
        context = self.global_norm(x.mean((2, 3), keepdim=True))  # averaged first, then brought to length one
        x = self.local_norm(x)
        if self.global_score is not None:
            return self.score(x) + self.global_score(context)
        return self.score(torch.cat([x, context.expand_as(x)], dim=1))
