"""Fully convolutional segmentation head (Long et al., arXiv 1411.4038).

It joins several maps as HRNet's dense code does.
"""

from __future__ import annotations

import functools
import operator
from typing import ClassVar

from torch import Tensor, nn

from spine.interfaces import Features, FeatureSpec, Head
from spine.layers.conv import conv_norm_act, resize_map
from spine.layers.pyramid import pyramid_for
from spine.task_spec import HeadInput


class FCN(Head):
    """Joins the maps at the finest stride, then two 3x3 convolutions and the classifier.

    The join is a 1x1 convolution of the concatenated, upsampled maps. It is computed per level
    before upsampling, and summed. This is the same linear function, because bilinear weights sum to
    one, at a fraction of the cost.
    """

    reads: ClassVar[HeadInput] = "maps"

    def __init__(self, spec: FeatureSpec, num_outputs: int, *, channels: int = 128, dropout: float = 0.1):
        super().__init__()
        self.pyramid, levels = pyramid_for(spec)
        self.join = nn.ModuleList(nn.Conv2d(level.channels, channels, 1, bias=i == 0) for i, level in enumerate(levels))
        self.convs = nn.Sequential(*(conv_norm_act(channels, channels, 3) for _ in range(2)))
        self.drop = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_outputs, 1)

    def forward(self, features: Features) -> Tensor:
        """Features -> logits (B, classes, h, w) at the stride of the finest map."""
        maps = features.maps if self.pyramid is None else self.pyramid(features.maps)
        size = maps[0].shape[-2:]
        joined = functools.reduce(operator.add, (resize_map(conv(x), size) for conv, x in zip(self.join, maps, strict=True)))
        return self.classifier(self.drop(self.convs(joined)))
