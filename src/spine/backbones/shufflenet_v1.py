"""ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices (Zhang et al., CVPR 2018, arXiv 1707.01083).

Residual bottlenecks with grouped 1x1 convolutions. A fixed shuffle of the channels between them
passes features from each group to all others.

As in the authors' code, the shuffle follows the depthwise convolution. In the paper it comes
before, which is equal up to the order of the depthwise channels. The authors' shuffle is also the
inverse of the paper's formula; `paper_shuffle=True` follows the formula, like OpenMMLab. The
authors' classifier has no bias.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.conv import GlobalAveragePool, conv_norm, conv_norm_act
from spine.layers.initialization import shufflenet_init, shufflenet_stem_init
from spine.variants import Hyperparameters, System, variant_builder

DEPTHS = (4, 8, 4)  # units of stages 2, 3, 4


class ShuffleUnit(nn.Module):
    """Grouped 1x1, depthwise 3x3 without activation, shuffle, grouped 1x1 (paper figures 2b and 2c)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int, first_groups: int, paper_shuffle: bool):
        """`first_groups`: of the first 1x1 convolution."""
        super().__init__()
        self.stride = stride
        hidden = out_channels // 4  # a quarter of the output channels, also for stride 2
        # the authors transpose channels (n, groups) to (groups, n), which torch calls a shuffle of n groups; the paper the reverse
        self.shuffled_groups = groups if paper_shuffle else hidden // groups
        added = out_channels - in_channels if stride == 2 else out_channels
        self.branch_main_1 = nn.Sequential(
            *conv_norm_act(in_channels, hidden, 1, groups=first_groups),
            *conv_norm(hidden, hidden, 3, stride, groups=hidden),
        )
        self.branch_main_2 = conv_norm(hidden, added, 1, groups=groups)
        self.branch_proj = nn.AvgPool2d(3, 2, 1) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        branch = self.branch_main_2(F.channel_shuffle(self.branch_main_1(x), self.shuffled_groups))
        if self.stride == 2:  # the averaged input first, without an activation
            return torch.cat([self.branch_proj(x), F.relu(branch, inplace=True)], dim=1)
        return F.relu(x + branch, inplace=True)


class ShuffleNetV1(Backbone):
    """Maps with strides 4 (after the max pooling), 8, 16, 32."""

    def __init__(
        self,
        groups: int,
        stem: int,
        channels: tuple[int, ...],
        *,
        paper_shuffle: bool = False,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        in_chans: int = 3,
    ):
        """`stem`: channels of the stem; `channels`: of the three stages."""
        super().__init__()
        check_use(use)
        self.levels = (3,) if use == "pooled" else pick_levels(levels, 4)
        widths, ends = (stem, *channels), list(itertools.accumulate(DEPTHS, initial=0))
        self.last_units = [ends[i] for i in self.levels]  # number of units before each map
        self.first_conv = conv_norm_act(in_chans, stem, 3, 2)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.features = nn.ModuleList()
        for stage in range(self.levels[-1]):
            source, wide = widths[stage : stage + 2]
            first_groups = groups if stage > 0 else 1  # the first 1x1 is not grouped, because the stem has few channels
            self.features.append(ShuffleUnit(source, wide, 2, groups, first_groups, paper_shuffle))
            for _ in range(DEPTHS[stage] - 1):
                self.features.append(ShuffleUnit(wide, wide, 1, groups, groups, paper_shuffle))
        self.pooling = GlobalAveragePool() if use == "pooled" else nn.Identity()
        self.spec = FeatureSpec(tuple(Level(widths[i], 4 * 2**i) for i in self.levels), embed_dim=widths[self.levels[-1]])
        self.apply(shufflenet_init)
        self.first_conv.apply(shufflenet_stem_init)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the chosen levels."""
        x = self.maxpool(self.first_conv(image))
        maps = [x] if 0 in self.last_units else []
        for i, unit in enumerate(self.features, start=1):
            x = unit(x)
            if i in self.last_units:
                maps.append(x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem; each unit."""
        return [("first_conv.",), *((f"features.{i}.",) for i in range(len(self.features)))]


def _channels(groups: int, stem: int, first: int) -> Hyperparameters:
    """Hyperparameters of a variant. Each stage has twice the channels of the one before it."""
    return {"groups": groups, "stem": stem, "channels": (first, 2 * first, 4 * first)}


# Paper tables 1, 2 and 5; micro is ours. Stems are not scaled with the other layers. Those of 0.5 and more are the authors'. No source
# gives those of 0.25; g8 needs a multiple of 8 there. Variants in which the groups do not divide the channels are left out.
VARIANTS: dict[str, Hyperparameters] = {
    "micro": _channels(4, 16, 64),
    "x1_0_g1": _channels(1, 24, 144),
    "x1_0_g2": _channels(2, 24, 200),
    "x1_0_g3": _channels(3, 24, 240),
    "x1_0_g4": _channels(4, 24, 272),
    "x1_0_g8": _channels(8, 24, 384),
    "x0_5_g1": _channels(1, 12, 72),
    "x0_5_g3": _channels(3, 12, 120),
    "x0_5_g8": _channels(8, 16, 192),
    "x0_25_g1": _channels(1, 6, 36),
    "x0_25_g3": _channels(3, 6, 60),
    "x0_25_g8": _channels(8, 24, 96),
    "x1_5_g3": _channels(3, 24, 360),
    "x1_5_g8": _channels(8, 24, 576),
    "x2_0_g3": _channels(3, 48, 480),
    "x2_0_g8": _channels(8, 48, 768),
}

# The classifier of the published networks has no bias.
SYSTEMS: dict[str, dict[str, System]] = {"linear": {variant: System(head={"bias": False}) for variant in VARIANTS}}


@variant_builder(ShuffleNetV1)
def shufflenet_v1(variant: str = "x1_0_g3", **options: Any) -> ShuffleNetV1:
    """Builds a ShuffleNet by the name of its variant: width and number of groups.

    paper_shuffle: shuffles channels by the paper's formula, like OpenMMLab, instead of by the
    authors' code.
    """
    return ShuffleNetV1(**VARIANTS[variant], **options)
