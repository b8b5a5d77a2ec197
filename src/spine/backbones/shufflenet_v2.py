"""ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design (Ma et al., ECCV 2018, arXiv 1807.11164).

In each unit half of the channels are not changed, and the other half pass ordinary 1x1 and
depthwise convolutions. There are no sums and no grouped 1x1 convolutions, which reduces memory
access.

Units are the authors': they split the channels at their start into even and odd ones, and for
stride 2 the shortcut keeps the number of input channels. In torchvision and OpenMMLab every unit
shuffles at its end, and for stride 2 both branches output half of the channels:
`equal_branches=True`. That is a different network; no reordering of weights converts one into the
other. The authors' classifier has no bias. The dropout of 0.2 before it, for x2_0 and large_164_se,
belongs to their training recipe: `head.dropout=0.2`.

large_50 is in the paper's table of large networks, which does not specify how the first stage, of
stride 1, changes the channels from 64; here by the unit that changes channels in all other stages.
large_164_se is the network that the authors released as ShuffleNetV2.Large. Its depth, error and
multiply-adds are those of the paper's SE-ShuffleNet v2-164. Its units are not: they have grouped
convolutions instead of depthwise ones, on fewer channels. Its three additional classifiers, used
only in training, are left out; its own classifier has a bias.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.checkpointing import run_block
from spine.layers.conv import GlobalAveragePool, conv_norm, conv_norm_act, set_batch_norm
from spine.layers.initialization import shufflenet_init, shufflenet_stem_init
from spine.variants import Hyperparameters, System, variant_builder


def split_channels(x: Tensor) -> tuple[Tensor, ...]:
    """Splits maps into even and odd channels: (B, C, h, w) -> two of (B, C / 2, h, w)."""
    return F.channel_shuffle(x, x.shape[1] // 2).chunk(2, dim=1)  # channels (C / 2, 2) -> (2, C / 2)


def main_branch(in_channels: int, hidden: int, out_channels: int, stride: int) -> nn.Sequential:
    """1x1, depthwise 3x3 without activation, 1x1."""
    return nn.Sequential(
        *conv_norm_act(in_channels, hidden, 1),
        *conv_norm(hidden, hidden, 3, stride, groups=hidden),
        *conv_norm_act(hidden, out_channels, 1),
    )


class BasicUnit(nn.Module):
    """Unit of stride 1: the main branch changes the odd channels only (paper figure 3c).

    `shuffle_last`: it changes the second half of the channels instead, and a shuffle follows.
    """

    def __init__(self, channels: int, shuffle_last: bool = False):
        super().__init__()
        self.shuffle_last = shuffle_last
        self.branch_main = main_branch(channels // 2, channels // 2, channels // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        if self.shuffle_last:
            left, right = x.chunk(2, dim=1)
            return F.channel_shuffle(torch.cat([left, self.branch_main(right)], dim=1), 2)
        even, odd = split_channels(x)
        return torch.cat([even, self.branch_main(odd)], dim=1)


class DownUnit(nn.Module):
    """Unit that changes the number of channels: both branches read all channels (paper figure 3d).

    The shortcut keeps the number of channels, or outputs half of the output channels if
    `equal_branches`; then a shuffle follows.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2, equal_branches: bool = False):
        super().__init__()
        self.shuffle_last = equal_branches
        kept = out_channels // 2 if equal_branches else in_channels
        self.branch_main = main_branch(in_channels, out_channels // 2, out_channels - kept, stride)
        self.branch_proj = nn.Sequential(
            *conv_norm(in_channels, in_channels, 3, stride, groups=in_channels), *conv_norm_act(in_channels, kept, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        both = torch.cat([self.branch_proj(x), self.branch_main(x)], dim=1)
        return F.channel_shuffle(both, 2) if self.shuffle_last else both


class LargeUnit(nn.Module):
    """Bottleneck with a grouped 3x3 convolution, squeeze-and-excitation and a residual connection,
    on the odd channels.

    If the number of channels changes, a dense 3x3 convolution is applied to the even channels, and
    there is no residual connection. For stride 2, a 1x1 convolution at the end mixes all channels.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        """`in_channels`, `out_channels`: of one half."""
        super().__init__()
        self.proj = conv_norm(in_channels, out_channels, 3, stride) if in_channels != out_channels or stride == 2 else None
        self.branch_main = nn.Sequential(
            conv_norm_act(in_channels, out_channels, 1),
            conv_norm_act(out_channels, out_channels, 3, stride, groups=8),
            conv_norm(out_channels, out_channels, 1),
        )
        self.se_block = nn.Sequential(  # without a reduction of the channels
            nn.Linear(out_channels, out_channels),
            nn.ReLU(inplace=True),
            nn.Linear(out_channels, out_channels),
            nn.Sigmoid(),
        )
        self.down = conv_norm_act(2 * out_channels, 2 * out_channels, 1) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2 C, h, w) -> (B, 2 C', h / stride, w / stride)."""
        even, odd = split_channels(x)
        branch = self.branch_main(odd)
        branch = branch * self.se_block(branch.mean((2, 3)))[:, :, None, None]
        halves = [even, branch + odd] if self.proj is None else [self.proj(even), branch]
        return self.down(F.relu(torch.cat(halves, dim=1), inplace=True))


def last_conv_pool(in_channels: int, out_channels: int, kernel: int = 1) -> GlobalAveragePool:
    """The last convolution, then global average."""
    pool = GlobalAveragePool()
    pool.add_module("conv_last", conv_norm_act(in_channels, out_channels, kernel))
    return pool


class ShuffleNetV2(Backbone):
    """Maps with strides 4, 8, 16, 32; with three stages the finest is that of the max pooling.

    The last convolution is part of pooling.
    """

    def __init__(
        self,
        stem: int,
        channels: tuple[int, ...],
        embed_dim: int,
        depths: tuple[int, ...] = (4, 8, 4),
        *,
        equal_branches: bool = False,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        grad_checkpointing: bool = False,
        in_chans: int = 3,
    ):
        super().__init__()
        check_use(use)
        self.levels = (3,) if use == "pooled" else pick_levels(levels, 4)
        self.grad_checkpointing = grad_checkpointing
        widths, ends = (stem, *channels), list(itertools.accumulate(depths, initial=0))
        above = len(depths) - 3  # stages with the stride of the max pooling
        self.last_units = [ends[i + above] for i in self.levels]  # number of units before each map
        self.first_conv = conv_norm_act(in_chans, stem, 3, 2)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.features = nn.ModuleList()
        for stage in range(self.levels[-1] + above):
            self.features.append(DownUnit(widths[stage], widths[stage + 1], 1 if stage < above else 2, equal_branches))
            self.features.extend(BasicUnit(widths[stage + 1], equal_branches) for _ in range(depths[stage] - 1))
        self.pooling = last_conv_pool(widths[-1], embed_dim) if use == "pooled" else nn.Identity()
        self.spec = FeatureSpec(
            tuple(Level(widths[i + above], 4 * 2**i) for i in self.levels),
            embed_dim=embed_dim if use == "pooled" else widths[self.levels[-1] + above],
        )
        self.apply(shufflenet_init)
        self.first_conv.apply(shufflenet_stem_init)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the chosen levels."""
        x = self.maxpool(self.first_conv(image))
        maps = [x] if 0 in self.last_units else []
        for i, unit in enumerate(self.features, start=1):
            x = run_block(self, unit, x)
            if i in self.last_units:
                maps.append(x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem; each unit; the last convolution."""
        return [("first_conv.",), *((f"features.{i}.",) for i in range(len(self.features))), ("pooling.",)]


class LargeShuffleNetV2(Backbone):
    """A stem of three convolutions and four stages with strides 4, 8, 16, 32.

    The last convolution, a 3x3, is part of pooling.
    """

    def __init__(
        self,
        stem: tuple[int, ...],
        channels: tuple[int, ...],
        embed_dim: int,
        depths: tuple[int, ...],
        *,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        grad_checkpointing: bool = False,
        in_chans: int = 3,
    ):
        super().__init__()
        check_use(use)
        self.levels = (3,) if use == "pooled" else pick_levels(levels, 4)
        self.grad_checkpointing = grad_checkpointing
        sizes = itertools.pairwise((in_chans, *stem))
        self.first_conv = nn.Sequential(*(conv_norm_act(a, b, 3, 2 if i == 0 else 1) for i, (a, b) in enumerate(sizes)))
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.features = nn.ModuleList()
        halves = [width // 2 for width in (stem[-1], *channels)]
        for stage in range(self.levels[-1] + 1):
            units = nn.Sequential()
            for i in range(depths[stage]):  # the authors' names: 2a, 2b, ... in stage 2
                source, stride = (halves[stage], 2 if stage > 0 else 1) if i == 0 else (halves[stage + 1], 1)
                units.add_module(f"{stage + 2}{chr(ord('a') + i)}", LargeUnit(source, halves[stage + 1], stride))
            self.features.append(units)
        self.pooling = last_conv_pool(channels[-1], embed_dim, kernel=3) if use == "pooled" else nn.Identity()
        self.spec = FeatureSpec(
            tuple(Level(channels[i], 4 * 2**i) for i in self.levels),
            embed_dim=embed_dim if use == "pooled" else channels[self.levels[-1]],
        )
        self._initialize()
        set_batch_norm(self, eps=1e-9)

    def _initialize(self) -> None:
        """Like the small networks; linear layers normal of std 0.01, biases zero (the authors)."""
        for module in self.modules():
            shufflenet_init(module)
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        self.first_conv.apply(shufflenet_stem_init)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the chosen levels."""
        x, maps = self.maxpool(self.first_conv(image)), []
        for i, stage in enumerate(self.features):
            for unit in stage.children():
                x = run_block(self, unit, x)
            if i in self.levels:
                maps.append(x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem; each unit; the last convolution."""
        units = [(f"features.{i}.{name}.",) for i, stage in enumerate(self.features) for name, _ in stage.named_children()]
        return [("first_conv.",), *units, ("pooling.",)]


# Paper table 5 and the table of large networks in its appendix; ShuffleNetV2.Large as released; micro is ours.
VARIANTS: dict[str, Hyperparameters] = {
    "micro": {"stem": 16, "channels": (32, 64, 128), "embed_dim": 256},
    "x0_5": {"stem": 24, "channels": (48, 96, 192), "embed_dim": 1024},
    "x1_0": {"stem": 24, "channels": (116, 232, 464), "embed_dim": 1024},
    "x1_5": {"stem": 24, "channels": (176, 352, 704), "embed_dim": 1024},
    "x2_0": {"stem": 24, "channels": (244, 488, 976), "embed_dim": 2048},
    "large_50": {"stem": 64, "channels": (244, 488, 976, 1952), "embed_dim": 2048, "depths": (3, 4, 6, 3)},
    "large_164_se": {
        "stem": (64, 64, 128),
        "channels": (256, 512, 1024, 2048),
        "depths": (10, 10, 23, 10),
        "embed_dim": 1280,
    },
}

# The classifier of the published networks has no bias.
SYSTEMS: dict[str, dict[str, System]] = {
    "linear": {variant: System(head={"bias": False}) for variant in VARIANTS if variant != "large_164_se"}
}


@variant_builder(ShuffleNetV2, LargeShuffleNetV2)
def shufflenet_v2(variant: str = "x1_0", *, equal_branches: bool = False, **options: Any) -> ShuffleNetV2 | LargeShuffleNetV2:
    """Builds a ShuffleNet V2 by the name of its variant.

    equal_branches: the units of torchvision and OpenMMLab; large_164_se ignores it.
    """
    if variant == "large_164_se":
        return LargeShuffleNetV2(**VARIANTS[variant], **options)
    return ShuffleNetV2(**VARIANTS[variant], equal_branches=equal_branches, **options)
