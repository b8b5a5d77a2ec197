"""Xception: Deep Learning with Depthwise Separable Convolutions (Chollet, CVPR 2017, arXiv 1610.02357).

Channels and positions are mixed separately: all convolutions except the first two are a depthwise
3x3 and then a 1x1, without an activation between them.

Padding is symmetric and batch norm has PyTorch's eps, as in Cadene's port and timm. (Keras pads
stride-2 layers of even maps at the right and bottom only, and has eps 1e-3.) The stem has no
padding: the map with stride 4 is one pixel smaller than H / 4. The coarser maps have H / stride
again if H is a multiple of 8. The dropout of 0.5 before the classifier is an option of the head.

With an output stride below 32, pools get stride 1, and the layers after them are dilated by DeepLab's
rule (Chen et al., arXiv 1802.02611, section 4.3). DeepLab's own Xception is another network: it has
more layers, and strided convolutions instead of pools.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.conv import GlobalAveragePool
from spine.layers.dilation import dilate
from spine.layers.initialization import kaiming_fan_out
from spine.variants import Hyperparameters, System, variant_builder


class SeparableConv2d(nn.Module):
    """Depthwise 3x3, then 1x1; the paper found an activation between them harmful (section 4.7)."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w)."""
        return self.pointwise(self.conv1(x))


class Block(nn.Module):
    """ReLU, separable convolution and norm for each pair of `channels`, with a shortcut (figure 5).

    `stride`: of the max pooling that follows, and of the shortcut; None without pooling.
    """

    def __init__(self, channels: tuple[int, ...], stride: int | None, dilation: int = 1, relu_first: bool = True):
        super().__init__()
        self.rep = nn.Sequential()
        for i, (narrow, wide) in enumerate(itertools.pairwise(channels)):
            if i > 0 or relu_first:
                self.rep.append(nn.ReLU(inplace=i > 0))  # the first ReLU must not change the input of the shortcut
            self.rep.append(SeparableConv2d(narrow, wide, dilation))
            self.rep.append(nn.BatchNorm2d(wide))
        self.projected = stride is not None
        if stride is not None:
            if dilation > 1:  # the padding of a pool itself is at most half of its kernel
                self.rep.append(nn.ConstantPad2d(dilation, -math.inf))
            self.rep.append(nn.MaxPool2d(3, stride, 1 if dilation == 1 else 0, dilation))
            self.skip = nn.Conv2d(channels[0], channels[-1], 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(channels[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', ceil(h / stride), ceil(w / stride))."""
        return self.rep(x).add_(self.skipbn(self.skip(x)) if self.projected else x)


class Xception(Backbone):
    """Entry flow (strides 2 to 16), middle flow (stride 16), exit flow (stride 32); strides are at most the output stride.

    Maps are taken after a ReLU, as in timm.
    """

    def __init__(
        self,
        stem: tuple[int, int] = (32, 64),
        entry: tuple[int, int, int] = (128, 256, 728),
        middle_blocks: int = 8,
        exit_flow: tuple[int, int, int] = (1024, 1536, 2048),
        *,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        output_stride: int = 32,
        in_chans: int = 3,
    ):
        super().__init__()
        check_use(use)
        self.levels = (3,) if use == "pooled" else pick_levels(levels, 4)
        self.conv1 = nn.Conv2d(in_chans, stem[0], 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(stem[0])
        self.conv2 = nn.Conv2d(stem[0], stem[1], 3, bias=False)
        self.bn2 = nn.BatchNorm2d(stem[1])
        self.relu = nn.ReLU(inplace=True)
        middle, first, second, last = entry[-1], *exit_flow
        steps = iter(dilate((2, 2, 2, *(1,) * middle_blocks, 2, 1), output_stride))  # the last one: of conv3 and conv4
        blocks = [Block((stem[1], entry[0], entry[0]), *next(steps), relu_first=False)]  # the stem ends in a ReLU
        blocks += [Block((narrow, wide, wide), *next(steps)) for narrow, wide in itertools.pairwise(entry)]
        blocks += [Block((middle,) * 4, None, next(steps)[1]) for _ in range(middle_blocks)]
        # This block widens in its second convolution; the entry blocks in their first.
        blocks += [Block((middle, middle, first), *next(steps))]
        dilation = next(steps)[1]
        ends = (1, 2, 3 + middle_blocks, len(blocks))
        self.last_blocks = [str(ends[i]) for i in self.levels if i < 3]
        self.blocks = nn.ModuleDict({str(i): block for i, block in enumerate(blocks[: ends[self.levels[-1]]], 1)})
        self.exit = self.levels[-1] == 3
        if self.exit:
            self.conv3 = SeparableConv2d(first, second, dilation)
            self.bn3 = nn.BatchNorm2d(second)
            self.conv4 = SeparableConv2d(second, last, dilation)
            self.bn4 = nn.BatchNorm2d(last)
        self.pooling = GlobalAveragePool() if use == "pooled" else nn.Identity()
        channels = (*entry, last)
        found = tuple(Level(channels[i], min(4 * 2**i, output_stride)) for i in self.levels)
        self.spec = FeatureSpec(found, embed_dim=channels[self.levels[-1]])
        self.apply(kaiming_fan_out)  # timm; the paper does not specify it, and Keras uses Glorot's

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the chosen levels."""
        x = self.relu(self.bn1(self.conv1(image)))
        x = self.relu(self.bn2(self.conv2(x)))
        maps = []
        for name, block in self.blocks.items():
            x = block(x)
            if name in self.last_blocks:
                maps.append(F.relu(x))
        if self.exit:
            x = self.relu(self.bn3(self.conv3(x)))
            maps.append(self.relu(self.bn4(self.conv4(x))))
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem; each block; the last two convolutions."""
        blocks = [(f"blocks.{name}.",) for name in self.blocks]
        return [("conv1.", "bn1.", "conv2.", "bn2."), *blocks, ("conv3.", "bn3.", "conv4.", "bn4.")]


# Paper figure 5; micro is ours.
VARIANTS: dict[str, Hyperparameters] = {
    "micro": {"stem": (16, 32), "entry": (48, 96, 192), "middle_blocks": 2, "exit_flow": (256, 320, 448)},
    "standard": {},
}

# DeepLabv3+: the head's defaults, at stride 16.
SYSTEMS: dict[str, dict[str, System]] = {"aspp": dict.fromkeys(VARIANTS, System(backbone={"output_stride": 16}))}


@variant_builder(Xception)
def xception(variant: str = "standard", **options: Any) -> Xception:
    """Builds an Xception by the name of its variant.

    output_stride: 8, 16 or 32, the stride of the coarsest map.
    """
    return Xception(**VARIANTS[variant], **options)
