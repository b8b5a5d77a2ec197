"""Atrous spatial pyramid pooling with the decoder of DeepLabv3+ (Chen et al., ECCV 2018, arXiv 1802.02611).

Parallel dilated convolutions of the coarse map see contexts of several sizes. A decoder joins the
result with a fine map. The coarse map should have stride 16 or 8: `backbone.output_stride=16`.

With one map (`head.levels=[-1]`) there is no decoder, as in DeepLabv3 (Chen et al., arXiv 1706.05587);
without dilated convolutions too (`head.dilations=[]`) it is the head of MobileNetV2 (Sandler et al.,
arXiv 1801.04381, section 6.3). OpenMMLab's DepthwiseSeparableASPPHead has `bottleneck_kernel=3`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Features, FeatureSpec, Head
from spine.layers.conv import conv_norm_act, resize_map, separable_conv
from spine.layers.initialization import dense_head_init
from spine.layers.pyramid import pyramid_for
from spine.task_spec import HeadInput

REACH = 96  # pixels between the taps of the first dilated convolution: 6 at stride 16, 12 at stride 8 (section 4.1 of the paper)


class ASPP(Head):
    """Global average, 1x1 and dilated separable convolutions of the coarse map; decoder and classifier at the fine one."""

    reads: ClassVar[HeadInput] = "maps"
    levels: ClassVar[tuple[int, ...] | None] = (0, -1)

    def __init__(
        self,
        spec: FeatureSpec,
        num_outputs: int,
        *,
        channels: int = 256,
        dilations: tuple[int, ...] | None = None,
        low_channels: int = 48,
        bottleneck_kernel: int = 1,
        dropout: float = 0.1,
    ):
        """`dilations`: of the 3x3 convolutions; None for 6, 12 and 18 at stride 16, and in proportion at other strides.

        `low_channels`: to which the fine map is projected. `bottleneck_kernel`: of the convolution
        that joins the branches, 1 or 3.
        """
        super().__init__()
        if len(spec.levels) > 2:
            raise InputError(
                f"Head 'aspp' reads a fine and a coarse map, or one map without the decoder, not {len(spec.levels)}. "
                f"Use head.levels=[0,3] or head.levels=[3]."
            )
        self.pyramid, levels = pyramid_for(spec, (4, 1))
        width, stride = levels[-1]
        if dilations is None:
            dilations = tuple(factor * max(REACH // stride, 1) for factor in (1, 2, 3))
        self.image_pool = conv_norm_act(width, channels, 1)
        self.branches = nn.ModuleList([conv_norm_act(width, channels, 1)])
        self.branches.extend(separable_conv(width, channels, dilation) for dilation in dilations)
        joined = (len(self.branches) + 1) * channels
        self.bottleneck = conv_norm_act(joined, channels, bottleneck_kernel)
        self.low: nn.Module | None = None
        if len(levels) == 2:
            self.low = conv_norm_act(levels[0].channels, low_channels, 1)
            self.decoder = nn.Sequential(separable_conv(channels + low_channels, channels), separable_conv(channels, channels))
        self.drop = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_outputs, 1)
        dense_head_init(self, self.classifier)

    def forward(self, features: Features) -> Tensor:
        """Features -> logits (B, classes, h, w) at the stride of the fine map; without decoder, of the coarse map."""
        maps = features.maps if self.pyramid is None else self.pyramid(features.maps)
        x = maps[-1]
        context = self.image_pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        x = self.bottleneck(torch.cat([context, *(branch(x) for branch in self.branches)], dim=1))
        if self.low is not None:
            low = self.low(maps[0])
            x = self.decoder(torch.cat([resize_map(x, low.shape[-2:]), low], dim=1))
        return self.classifier(self.drop(x))
