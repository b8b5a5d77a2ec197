"""ParseNet: Looking Wider to See Better (Liu et al., arXiv 1506.04579).

Concatenates the average of the whole map to the features of each position. Their norms differ by
orders of magnitude, so both are divided by their L2 norm and multiplied by a learned scale per
channel (section 3.3). The published network is `backbone=vgg16 backbone.variant=largefov`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Features, FeatureSpec, Head
from spine.layers.initialization import zero_bias
from spine.layers.precision import at_least_float32
from spine.task_spec import HeadInput

EPS = 1e-10  # added to the sum of squares, inside the square root
SCALE = 10.0  # initial scale; features of norm one are too small for training


class L2Norm(nn.Module):
    """L2 normalization over the channels of each position, with a learned scale per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels, 1, 1), SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        wide = at_least_float32(x)  # in float16 squares overflow, and inverses of norms near zero too
        unit = wide * (wide.square().sum(1, keepdim=True) + EPS).rsqrt()
        return unit.to(torch.promote_types(x.dtype, self.scale.dtype)) * self.scale


class ParseNet(Head):
    """Classifies local features and global context of one map.

    They are concatenated before the classifier (early fusion), or two classifiers are summed (late).
    Without fusion, the local features alone are classified, for comparison.
    """

    reads: ClassVar[HeadInput] = "maps"

    @classmethod
    def choose_levels(cls, spec: FeatureSpec) -> tuple[int, ...]:
        """Returns the finest level of a fused backbone (HRNet), else the coarsest."""
        return (0,) if spec.fused else (-1,)

    def __init__(self, spec: FeatureSpec, num_outputs: int, *, fusion: str = "early"):
        super().__init__()
        if fusion not in ("early", "late", "none"):
            raise InputError(f"head.fusion is '{fusion}'; choose early, late or none.")
        channels = spec.levels[-1].channels
        self.local_norm = L2Norm(channels)
        self.global_norm = L2Norm(channels) if fusion != "none" else None
        self.score = nn.Conv2d(2 * channels if fusion == "early" else channels, num_outputs, 1)
        self.global_score = nn.Conv2d(channels, num_outputs, 1) if fusion == "late" else None
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                zero_bias(layer)

    def forward(self, features: Features) -> Tensor:
        """Features -> logits (B, classes, h, w) at the stride of the input map."""
        x = features.maps[-1]
        local = self.local_norm(x)
        if self.global_norm is None:
            return self.score(local)
        context = self.global_norm(x.mean((2, 3), keepdim=True))  # averaged before it is normalized
        if self.global_score is not None:
            return self.score(local) + self.global_score(context)
        return self.score(torch.cat([local, context.expand_as(local)], dim=1))
