"""UPerNet: Unified Perceptual Parsing for Scene Understanding (Xiao et al., ECCV 2018, arXiv 1807.10221).

The decoder of Swin, ConvNeXt and BEiT. The coarsest map is pooled to four sizes (the pyramid pooling
of PSPNet, Zhao et al., arXiv 1612.01105), then added to the finer maps from coarse to fine (a feature
pyramid network, Lin et al., arXiv 1612.03144), and all maps are joined at the finest stride. As in
OpenMMLab's UPerHead, which the authors of the three networks use; the paper's own code has no 3x3
convolutions after the sums.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.interfaces import Features, FeatureSpec, Head
from spine.layers.conv import conv_norm_act, resize_map
from spine.layers.initialization import dense_head_init
from spine.layers.pyramid import pyramid_for
from spine.task_spec import HeadInput

POOL_SIZES = (1, 2, 3, 6)


class UPerNet(Head):
    """Pyramid pooling of the coarsest map, feature pyramid of all maps, and the classifier."""

    reads: ClassVar[HeadInput] = "maps"

    def __init__(self, spec: FeatureSpec, num_outputs: int, *, channels: int = 512, dropout: float = 0.1):
        super().__init__()
        self.pyramid, levels = pyramid_for(spec)
        *finer, coarsest = (level.channels for level in levels)
        self.pools = nn.ModuleList(conv_norm_act(coarsest, channels, 1) for _ in POOL_SIZES)
        self.bottleneck = conv_norm_act(coarsest + len(POOL_SIZES) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(conv_norm_act(width, channels, 1) for width in finer)
        self.fpn_convs = nn.ModuleList(conv_norm_act(channels, channels, 3) for _ in finer)
        self.fpn_bottleneck = conv_norm_act(len(levels) * channels, channels, 3)
        self.drop = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_outputs, 1)
        dense_head_init(self, self.classifier)

    def forward(self, features: Features) -> Tensor:
        """Features -> logits (B, classes, h, w) at the stride of the finest map."""
        maps = features.maps if self.pyramid is None else self.pyramid(features.maps)
        top_down = self._pool(maps[-1])
        outputs = [top_down]
        for lateral, fpn, x in zip(self.lateral_convs[::-1], self.fpn_convs[::-1], maps[-2::-1], strict=True):
            top_down = lateral(x) + resize_map(top_down, x.shape[-2:])
            outputs.append(fpn(top_down))
        size = maps[0].shape[-2:]
        x = torch.cat([resize_map(each, size) for each in outputs[::-1]], dim=1)
        return self.classifier(self.drop(self.fpn_bottleneck(x)))

    def _pool(self, x: Tensor) -> Tensor:
        """Pyramid pooling: (B, C, h, w) -> (B, channels, h, w)."""
        pooled = [conv(F.adaptive_avg_pool2d(x, size)) for conv, size in zip(self.pools, POOL_SIZES, strict=True)]
        return self.bottleneck(torch.cat([x, *(resize_map(each, x.shape[-2:]) for each in pooled)], dim=1))
