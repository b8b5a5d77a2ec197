"""Keypoint heatmaps from the feature maps of all scales.

As in HRNetV2's network for facial landmarks (Sun et al., arXiv 1904.04514).
"""

from __future__ import annotations

import functools
import operator
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from spine.interfaces import Features, FeatureSpec, Head
from spine.layers.conv import resize_map
from spine.layers.pyramid import pyramid_for
from spine.task_spec import HeadInput


class MultiscaleHeatmap(Head):
    """One heatmap per keypoint at the stride of the finest map, from the joined maps of all levels.

    The join is a 1x1 convolution of the concatenated, upsampled maps. It is computed per level
    before upsampling, and summed. This is the same linear function, because bilinear weights sum to
    one, at a fraction of the cost.
    """

    reads: ClassVar[HeadInput] = "maps"
    tasks: ClassVar[tuple[str, ...] | None] = ("pose",)

    def __init__(self, spec: FeatureSpec, num_outputs: int, *, channels: int | None = None):
        """`channels`: of the join; None: as many as all maps together for HRNet (the authors' network), 256 for other backbones."""
        super().__init__()
        self.pyramid, levels = pyramid_for(spec)
        self.widths = [level.channels for level in levels]
        channels = (sum(self.widths) if spec.fused else 256) if channels is None else channels
        self.join = nn.Conv2d(sum(self.widths), channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.final_layer = nn.Conv2d(channels, num_outputs, 1)
        for layer in (self.join, self.final_layer):
            nn.init.normal_(layer.weight, std=0.001)  # the authors' code

    def forward(self, features: Features) -> Tensor:
        """Features -> (B, K, h, w) at the stride of the finest map."""
        maps = features.maps if self.pyramid is None else self.pyramid(features.maps)
        size, weights = maps[0].shape[-2:], self.join.weight.split(self.widths, dim=1)
        joined = [resize_map(F.conv2d(x, weight), size) for x, weight in zip(maps, weights, strict=True)]
        x = functools.reduce(operator.add, joined) + self.join.bias[:, None, None]  # type: ignore[index]
        return self.final_layer(F.relu(self.norm(x)))
