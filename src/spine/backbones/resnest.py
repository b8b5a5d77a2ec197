"""ResNeSt: Split-Attention Networks (Zhang et al., CVPRW 2022, arXiv 2004.08955).

A ResNet-D whose 3x3 convolutions compute several splits of the map. Channel attention, computed
from the sum of the splits, weights each channel of each split.

The splits are averaged over positions before they are summed, which is equal and reads them one
time less. DropBlock is not implemented, as in the authors' PyTorch code. The dropout of 0.2 before
the classifier of the two largest networks is an option of the head. With an output stride below 32,
stages are dilated as in the authors' code (its option `dilation`).
"""

from __future__ import annotations

import functools
import operator
from typing import Any

from torch import Tensor, nn

from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.checkpointing import run_block
from spine.layers.conv import GlobalAveragePool
from spine.layers.dilation import dilate
from spine.layers.initialization import kaiming_fan_out
from spine.variants import Hyperparameters, variant_builder


class SplitAttention(nn.Module):
    """Grouped 3x3 convolution to `radix` splits, and their weighted sum (section 3.1, figure 2)."""

    def __init__(self, channels: int, cardinality: int, radix: int, dilation: int):
        super().__init__()
        self.cardinality, self.radix = cardinality, radix
        hidden = max(channels * radix // 4, 32)
        self.conv = nn.Conv2d(
            channels, channels * radix, 3, padding=dilation, dilation=dilation, groups=cardinality * radix, bias=False
        )
        self.bn0 = nn.BatchNorm2d(channels * radix)
        self.relu = nn.ReLU(inplace=True)
        self.fc1 = nn.Conv2d(channels, hidden, 1, groups=cardinality)
        self.bn1 = nn.BatchNorm2d(hidden)  # one value per sample: it cannot train with a single image
        self.fc2 = nn.Conv2d(hidden, channels * radix, 1, groups=cardinality)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        x = self.relu(self.bn0(self.conv(x)))  # (B, radix * C, h, w), one split after another
        means = x.mean((2, 3), keepdim=True).unflatten(1, (self.radix, -1)).sum(1)  # (B, C, 1, 1)
        scores = self.fc2(self.relu(self.bn1(self.fc1(means))))
        if self.radix == 1:
            weights = scores.sigmoid()
        else:
            scores = scores.flatten(1).unflatten(1, (self.cardinality, self.radix, -1))  # here the groups come first
            weights = scores.softmax(2).transpose(1, 2).flatten(1)[..., None, None]  # (B, radix * C, 1, 1)
        return functools.reduce(operator.add, (x * weights).chunk(self.radix, 1))


class Bottleneck(nn.Module):
    """1x1, split attention, 1x1 to four times the width, residual connection.

    Average pools downsample (ResNet-D).
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        radix: int,
        cardinality: int,
        bottleneck_width: int,
        pool_first: bool,
        *,
        stride: int,
        dilation: int,
        pooled: bool,
    ):
        """`pooled`: has a 3x3 average pool, also if an output stride reduces the stride of the pool to 1.

        `pool_first`: the pool is before the split attention instead of after it.
        """
        super().__init__()
        inner = width * bottleneck_width // 64 * cardinality
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        # this pool includes the padding in its averages, the pool of the shortcut does not
        pool: nn.Module = nn.AvgPool2d(3, stride, padding=1) if pooled else nn.Identity()
        self.pool_before = pool if pool_first else nn.Identity()
        self.pool_after = nn.Identity() if pool_first else pool
        self.conv2 = SplitAttention(inner, cardinality, radix, dilation)  # no norm and no ReLU after it
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity(),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 4 * width, ceil(h / stride), ceil(w / stride))."""
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.pool_after(self.conv2(self.pool_before(branch)))
        return self.relu(self.bn3(self.conv3(branch)) + self.downsample(x))


def deep_stem(in_chans: int, width: int) -> nn.Sequential:
    """Three 3x3 convolutions to 2 * `width` channels, the first of stride 2.

    Norm and ReLU of the last one are not included.
    """
    return nn.Sequential(
        nn.Conv2d(in_chans, width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
    )


class ResNeSt(Backbone):
    """A stem of three 3x3 convolutions and four stages with strides 4, 8, 16, 32, at most the output stride."""

    def __init__(
        self,
        depths: tuple[int, ...],
        stem_width: int,
        width: int = 64,
        radix: int = 2,
        cardinality: int = 1,
        bottleneck_width: int = 64,
        pool_first: bool = False,
        *,
        zero_init_last: bool = True,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        output_stride: int = 32,
        grad_checkpointing: bool = False,
        in_chans: int = 3,
    ):
        """`width`: of stage 1.

        `pool_first`: the authors' "fast" networks, in which stride-2 blocks pool before split
        attention.
        """
        super().__init__()
        check_use(use)
        self.levels = (3,) if use == "pooled" else pick_levels(levels, 4)
        self.grad_checkpointing = grad_checkpointing
        self.depths = depths[: self.levels[-1] + 1]  # later stages are not needed
        self.conv1 = deep_stem(in_chans, stem_width)
        self.bn1 = nn.BatchNorm2d(2 * stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stages = nn.ModuleDict()
        channels, split = 2 * stem_width, (radix, cardinality, bottleneck_width, pool_first)
        downsampling = [[i > 0 and j == 0 for j in range(depth)] for i, depth in enumerate(self.depths)]
        steps = iter(dilate([2 if first else 1 for stage in downsampling for first in stage], output_stride, start=4))
        for i, blocks in enumerate(downsampling):
            stage = nn.Sequential()
            for first in blocks:
                stride, dilation = next(steps)
                block = Bottleneck(channels, width * 2**i, *split, stride=stride, dilation=dilation, pooled=first)
                channels = width * 2**i * Bottleneck.expansion
                stage.append(block)
            self.stages[f"layer{i + 1}"] = stage
        self.pooling = GlobalAveragePool() if use == "pooled" else nn.Identity()
        found = (Level(width * 2**i * Bottleneck.expansion, min(4 * 2**i, output_stride)) for i in self.levels)
        self.spec = FeatureSpec(tuple(found), embed_dim=channels)
        self._initialize(zero_init_last)

    def _initialize(self, zero_init_last: bool) -> None:
        """Convolutions normal of variance 2 / (kernel area * out channels) (the authors' code)."""
        self.apply(kaiming_fan_out)
        for block in self.modules():
            if zero_init_last and isinstance(block, Bottleneck):  # blocks start as their shortcut (paper section 5.1)
                nn.init.zeros_(block.bn3.weight)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the chosen levels."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        maps = []
        for i, stage in enumerate(self.stages.values()):
            for block in stage.children():
                x = run_block(self, block, x)
            if i in self.levels:
                maps.append(x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem; each block."""
        blocks = [(f"stages.layer{i}.{j}.",) for i, depth in enumerate(self.depths, start=1) for j in range(depth)]
        return [("conv1.", "bn1."), *blocks]


def fast(radix: int, cardinality: int, bottleneck_width: int) -> Hyperparameters:
    """Hyperparameters of the ablation study: 4s2x40d has radix 4, cardinality 2, width 40."""
    split = {"radix": radix, "cardinality": cardinality, "bottleneck_width": bottleneck_width}
    return {"depths": (3, 4, 6, 3), "stem_width": 32, "pool_first": True, **split}


# Paper tables 3 and 1, the authors' `resnest.py` and `ablation.py`; 14 and 26 are GluonCV's; micro is ours.
VARIANTS: dict[str, Hyperparameters] = {
    "micro": {"depths": (1, 1, 2, 1), "stem_width": 16, "width": 16},
    "resnest14": {"depths": (1, 1, 1, 1), "stem_width": 32},
    "resnest26": {"depths": (2, 2, 2, 2), "stem_width": 32},
    "resnest50": {"depths": (3, 4, 6, 3), "stem_width": 32},
    "resnest101": {"depths": (3, 4, 23, 3), "stem_width": 64},
    "resnest200": {"depths": (3, 24, 36, 3), "stem_width": 64},
    "resnest269": {"depths": (3, 30, 48, 8), "stem_width": 64},
    "resnest50_fast_1s1x64d": fast(1, 1, 64),
    "resnest50_fast_2s1x64d": fast(2, 1, 64),
    "resnest50_fast_4s1x64d": fast(4, 1, 64),
    "resnest50_fast_1s2x40d": fast(1, 2, 40),
    "resnest50_fast_2s2x40d": fast(2, 2, 40),
    "resnest50_fast_4s2x40d": fast(4, 2, 40),
    "resnest50_fast_1s4x24d": fast(1, 4, 24),
}


@variant_builder(ResNeSt)
def resnest(variant: str = "resnest50", **options: Any) -> ResNeSt:
    """Builds a ResNeSt by the name of its variant.

    zero_init_last: initializes the scale of the last norm of each block to zero. output_stride: 8, 16
    or 32, the stride of the coarsest map.
    """
    return ResNeSt(**VARIANTS[variant], **options)
