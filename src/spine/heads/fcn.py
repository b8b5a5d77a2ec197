"""Fully convolutional segmentation head (Long et al., arXiv 1411.4038).

It joins several maps as HRNet's dense code does. The head of that code itself, two 1x1 convolutions
(Wang et al., arXiv 1908.07919, section 4), has `num_convs=0, join_norm=True` and as many channels as
all maps together; `backbone=hrnet` sets these options. OpenMMLab's FCNHead, which is the auxiliary
head of most of its networks, reads one map without joining: `join=False, num_convs=1`; as the head of
its own FCN it also reads that map after the convolutions: `concat_input=True, num_convs=2`.
"""

from __future__ import annotations

import functools
import operator
from typing import ClassVar

import torch
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Features, FeatureSpec, Head
from spine.layers.conv import conv_norm_act, resize_map
from spine.layers.pyramid import pyramid_for
from spine.task_spec import HeadInput


class FCN(Head):
    """Joins the maps at the finest stride, then 3x3 convolutions and the classifier.

    The join is a 1x1 convolution of the concatenated, upsampled maps. It is computed per level
    before upsampling, and summed. This is the same linear function, because bilinear weights sum to
    one, at a fraction of the cost.
    """

    reads: ClassVar[HeadInput] = "maps"

    def __init__(
        self,
        spec: FeatureSpec,
        num_outputs: int,
        *,
        channels: int = 128,
        num_convs: int = 2,
        join: bool = True,
        join_norm: bool = False,
        conv_bias: bool = True,
        concat_input: bool = False,
        align_corners: bool = False,
        dropout: float = 0.1,
    ):
        """`num_convs`: 3x3 convolutions. `join`: False for a single map, which is not projected first.

        `join_norm`: batch norm and ReLU after the join. `conv_bias`: whether the join has a bias (in
        OpenMMLab's networks it has none if a norm follows). `concat_input`: one more 3x3 convolution, of
        the input and the output of the others. `align_corners`: of the upsampling.
        """
        super().__init__()
        self.align_corners = align_corners
        if not join and len(spec.levels) > 1:
            raise InputError(
                f"head.join is false, but the head reads {len(spec.levels)} maps. Choose one, such as head.levels=[2]."
            )
        self.pyramid, levels = pyramid_for(spec)
        first = channels if join else levels[0].channels
        joined = levels if join else ()
        self.join = nn.ModuleList(
            nn.Conv2d(level.channels, channels, 1, bias=conv_bias and i == 0) for i, level in enumerate(joined)
        )
        self.join_norm = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True)) if join_norm else nn.Identity()
        self.convs = nn.Sequential(*(conv_norm_act(first if i == 0 else channels, channels, 3) for i in range(num_convs)))
        self.concat = conv_norm_act(first + (channels if num_convs else first), channels, 3) if concat_input else None
        self.drop = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels if num_convs or concat_input else first, num_outputs, 1)

    def forward(self, features: Features) -> Tensor:
        """Features -> logits (B, classes, h, w) at the stride of the finest map."""
        maps = features.maps if self.pyramid is None else self.pyramid(features.maps)
        x, size = maps[0], maps[0].shape[-2:]
        if self.join:
            projected = (conv(part) for conv, part in zip(self.join, maps, strict=True))
            parts = (resize_map(part, size, align_corners=self.align_corners) for part in projected)
            x = self.join_norm(functools.reduce(operator.add, parts))
        out = self.convs(x)
        if self.concat is not None:
            out = self.concat(torch.cat([x, out], dim=1))
        return self.classifier(self.drop(out))
