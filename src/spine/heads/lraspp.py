"""LR-ASPP, the segmentation decoder of MobileNetV3 (Howard et al., arXiv 1905.02244, section 6.4, figure 10).

The coarse map is weighted by its global context, like in squeeze-and-excitation, and classified
together with a finer map. As in torchvision, which averages over the whole map; the authors pool
windows of 49x49 pixels with large strides.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Features, FeatureSpec, Head
from spine.layers.conv import conv_norm_act, resize_map
from spine.layers.initialization import dense_head_init
from spine.layers.pyramid import pyramid_for
from spine.task_spec import HeadInput


class LRASPP(Head):
    """Sum of the classifiers of a fine map and of the coarse map, which is weighted by its context."""

    reads: ClassVar[HeadInput] = "maps"
    levels: ClassVar[tuple[int, ...] | None] = (1, -1)

    def __init__(self, spec: FeatureSpec, num_outputs: int, *, channels: int = 128):
        super().__init__()
        if len(spec.levels) != 2:
            raise InputError(
                f"Head 'lraspp' reads two maps, a fine and a coarse one, not {len(spec.levels)}. Use head.levels=[1,3]."
            )
        self.pyramid, (fine, coarse) = pyramid_for(spec, (2, 1))
        self.conv = conv_norm_act(coarse.channels, channels, 1)
        self.scale = nn.Conv2d(coarse.channels, channels, 1, bias=False)
        self.low_classifier = nn.Conv2d(fine.channels, num_outputs, 1)
        self.high_classifier = nn.Conv2d(channels, num_outputs, 1)
        dense_head_init(self, self.low_classifier, self.high_classifier)

    def forward(self, features: Features) -> Tensor:
        """Features -> logits (B, classes, h, w) at the stride of the fine map."""
        fine, coarse = features.maps if self.pyramid is None else self.pyramid(features.maps)
        x = self.conv(coarse) * self.scale(coarse.mean((2, 3), keepdim=True)).sigmoid()
        return self.low_classifier(fine) + self.high_classifier(resize_map(x, fine.shape[-2:]))
