"""Object-contextual representations (Yuan et al., ECCV 2020, arXiv 1909.11065), the decoder of HRNet OCR.

A coarse segmentation gives the soft region of each class. The features of a region are the weighted
mean of the features of its pixels; each pixel attends to the regions, and is classified from its own
features and those of the regions.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from spine.interfaces import Features, FeatureSpec, Head, TrainingOutputs
from spine.layers.conv import conv_norm_act, resize_map
from spine.layers.initialization import dense_head_init
from spine.layers.pyramid import pyramid_for
from spine.task_spec import HeadInput


class OCR(Head):
    """Joins all maps at the finest stride, then object-contextual representations and the classifier.

    In training mode it returns TrainingOutputs: the coarse segmentation has a loss of its own.
    """

    reads: ClassVar[HeadInput] = "maps"

    def __init__(
        self,
        spec: FeatureSpec,
        num_outputs: int,
        *,
        channels: int = 512,
        key_channels: int = 256,
        conv_bias: bool = True,
        align_corners: bool = False,
        region_weight: float = 0.4,
        dropout: float = 0.05,
    ):
        """`channels`: of the features of pixels; `key_channels`: of queries, keys and values.

        `conv_bias`: whether the first convolutions have biases before their norms: True in the
        authors' code, False in OpenMMLab's. `align_corners`: of the upsampling, True in the authors'
        code. `region_weight`: of the loss of the coarse segmentation.
        """
        super().__init__()
        self.align_corners = align_corners
        self.key_channels, self.region_weight = key_channels, region_weight
        self.pyramid, levels = pyramid_for(spec)
        joined = sum(level.channels for level in levels)
        region_classifier = nn.Conv2d(joined, num_outputs, 1)
        self.regions = nn.Sequential(*conv_norm_act(joined, joined, 1, bias=conv_bias), region_classifier)
        self.pixels = conv_norm_act(joined, channels, 3, bias=conv_bias)
        self.query = nn.Sequential(conv_norm_act(channels, key_channels, 1), conv_norm_act(key_channels, key_channels, 1))
        self.key = nn.Sequential(conv_norm_act(channels, key_channels, 1), conv_norm_act(key_channels, key_channels, 1))
        self.value = conv_norm_act(channels, key_channels, 1)
        self.context = conv_norm_act(key_channels, channels, 1)
        self.fuse = conv_norm_act(2 * channels, channels, 1)
        self.drop = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_outputs, 1)
        dense_head_init(self, region_classifier, self.classifier)

    def forward(self, features: Features) -> Tensor | TrainingOutputs:
        """Features -> logits (B, classes, h, w) at the stride of the finest map; in training mode also those of the regions."""
        maps = features.maps if self.pyramid is None else self.pyramid(features.maps)
        size = maps[0].shape[-2:]
        x = torch.cat([resize_map(each, size, align_corners=self.align_corners) for each in maps], dim=1)
        regions, pixels = self.regions(x), self.pixels(x)
        shares = regions.flatten(2).softmax(2)  # (B, classes, N): of each pixel in the region of a class
        objects = (pixels.flatten(2) @ shares.transpose(1, 2))[..., None]  # (B, C, classes, 1)
        x = torch.cat([self._attend(pixels, objects), pixels], dim=1)
        logits = self.classifier(self.drop(self.fuse(x)))
        return TrainingOutputs(logits, ((regions, self.region_weight),)) if self.training else logits

    def _attend(self, pixels: Tensor, objects: Tensor) -> Tensor:
        """Features of pixels (B, C, h, w) and objects (B, C, classes, 1) -> context of each pixel (B, C, h, w)."""
        query = self.query(pixels).flatten(2).transpose(1, 2)  # (B, N, K)
        key, value = self.key(objects).flatten(2), self.value(objects).flatten(2)  # (B, K, classes)
        attention = (query @ key * self.key_channels**-0.5).softmax(2)  # (B, N, classes)
        return self.context((value @ attention.transpose(1, 2)).unflatten(2, pixels.shape[-2:]))
