"""ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices (Zhang et al., CVPR 2018, arXiv 1707.01083).

Residual bottlenecks whose 1x1 convolutions are grouped, and a fixed shuffle of the channels between them, so that what the groups
know reaches all of them. As in the authors' code the shuffle stands behind the depthwise convolution (the paper draws it before,
which is the same up to the order of the depthwise channels) and undoes what the paper's formula does; `paper_shuffle=True` follows
the formula, as OpenMMLab. The authors' classifier has no bias.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.conv import GlobalAveragePool, conv_norm, conv_norm_act, initialise_by_inputs, initialize_stem

DEPTHS = (4, 8, 4)  # units of stages 2, 3, 4


class ShuffleUnit(nn.Module):
    """Grouped 1x1, depthwise 3x3 without activation, shuffle, grouped 1x1 (paper figures 2b and 2c)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int, first_groups: int, paper_shuffle: bool):
        super().__init__()
        self.stride = stride
        hidden = out_channels // 4  # of the channels that come OUT, also where the stride is 2
        # the authors' channels (n, groups) become (groups, n), a shuffle of n groups in torch's words; the paper's the other way
        self.shuffled_groups = groups if paper_shuffle else hidden // groups
        made = out_channels - in_channels if stride == 2 else out_channels
        self.branch_main_1 = nn.Sequential(
            *conv_norm_act(in_channels, hidden, 1, groups=first_groups),
            *conv_norm(hidden, hidden, 3, stride, groups=hidden),
        )
        self.branch_main_2 = conv_norm(hidden, made, 1, groups=groups)
        self.branch_proj = nn.AvgPool2d(3, 2, 1) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        branch = self.branch_main_2(F.channel_shuffle(self.branch_main_1(x), self.shuffled_groups))
        if self.stride == 2:  # the shortcut comes first, and keeps what the average makes of it
            return torch.cat([self.branch_proj(x), F.relu(branch, inplace=True)], dim=1)
        return F.relu(x + branch, inplace=True)


class ShuffleNetV1(Backbone):
    """Maps at strides 4 (after the max-pooling), 8, 16, 32."""

    def __init__(
        self,
        *,
        groups: int,
        stem: int,
        channels: tuple[int, ...],
        paper_shuffle: bool = False,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        in_chans: int = 3,
    ):
        super().__init__()
        check_use(use)
        self.levels = (3,) if use == "pooled" else pick_levels(levels, 4)
        widths, ends = (stem, *channels), list(itertools.accumulate(DEPTHS, initial=0))
        self.last_units = [ends[i] for i in self.levels]  # units that a map has passed
        self.first_conv = conv_norm_act(in_chans, stem, 3, 2)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.features = nn.ModuleList()
        for stage in range(self.levels[-1]):
            source, wide = widths[stage : stage + 2]
            first_groups = groups if stage > 0 else 1  # the first 1x1 of all is not grouped: the stem has too few channels
            self.features.append(ShuffleUnit(source, wide, 2, groups, first_groups, paper_shuffle))
            for _ in range(DEPTHS[stage] - 1):
                self.features.append(ShuffleUnit(wide, wide, 1, groups, groups, paper_shuffle))
        self.pooling = GlobalAveragePool() if use == "pooled" else nn.Identity()
        self.spec = FeatureSpec(tuple(Level(widths[i], 4 * 2**i) for i in self.levels), embed_dim=widths[self.levels[-1]])
        self.apply(initialise_by_inputs)
        self.first_conv.apply(initialize_stem)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the levels it was built for."""
        x = self.maxpool(self.first_conv(image))
        maps = [x] if 0 in self.last_units else []
        for i, unit in enumerate(self.features, start=1):
            x = unit(x)
            if i in self.last_units:
                maps.append(x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem, each unit."""
        return [("first_conv.",), *((f"features.{i}.",) for i in range(len(self.features)))]


def _sizes(groups: int, stem: int, first: int) -> dict[str, Any]:
    """Each stage doubles the channels."""
    return {"groups": groups, "stem": stem, "channels": (first, 2 * first, 4 * first)}


# Paper tables 1, 2 and 5; micro is ours. Stems are not scaled with the rest: those of 0.5 and more are the authors'; no source gives those
# of 0.25, where the grouped units of g8 need a multiple of 8. Group numbers that do not divide the channels are left out.
VARIANTS: dict[str, dict[str, Any]] = {
    "micro": _sizes(4, 16, 64),
    "x1_0_g1": _sizes(1, 24, 144),
    "x1_0_g2": _sizes(2, 24, 200),
    "x1_0_g3": _sizes(3, 24, 240),
    "x1_0_g4": _sizes(4, 24, 272),
    "x1_0_g8": _sizes(8, 24, 384),
    "x0_5_g1": _sizes(1, 12, 72),
    "x0_5_g3": _sizes(3, 12, 120),
    "x0_5_g8": _sizes(8, 16, 192),
    "x0_25_g1": _sizes(1, 6, 36),
    "x0_25_g3": _sizes(3, 6, 60),
    "x0_25_g8": _sizes(8, 24, 96),
    "x1_5_g3": _sizes(3, 24, 360),
    "x1_5_g8": _sizes(8, 24, 576),
    "x2_0_g3": _sizes(3, 48, 480),
    "x2_0_g8": _sizes(8, 48, 768),
}

# Options of heads that belong to the published networks: head -> variant -> options. A key that the user gives wins.
HEAD_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {"linear": {variant: {"bias": False} for variant in VARIANTS}}


def shufflenet_v1(
    variant: str = "x1_0_g3",
    *,
    paper_shuffle: bool = False,
    use: Use = "pooled",
    levels: tuple[int, ...] | None = None,
    in_chans: int = 3,
) -> ShuffleNetV1:
    """A ShuffleNet by the name of its variant: width and number of groups."""
    return ShuffleNetV1(**VARIANTS[variant], paper_shuffle=paper_shuffle, use=use, levels=levels, in_chans=in_chans)
