"""ResNeSt: Split-Attention Networks (Zhang et al., CVPRW 2022, arXiv 2004.08955).

A ResNet-D whose 3x3 convolution gives several splits of the map; their sum decides, for each channel, how much of each split passes.
The splits are averaged before they are added, which is the same and reads them once less. DropBlock is left out, as in the authors'
PyTorch code; the dropout of 0.2 before the classifier of the two largest networks belongs to the head.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

from torch import Tensor, nn

from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.checkpointing import checkpointed
from spine.layers.conv import GlobalAveragePool


class SplitAttention(nn.Module):
    """Grouped 3x3 convolution to `radix` splits, weighted channel by channel and added (paper section 3.1, figure 2)."""

    def __init__(self, channels: int, cardinality: int, radix: int):
        super().__init__()
        self.cardinality, self.radix = cardinality, radix
        hidden = max(channels * radix // 4, 32)
        self.conv = nn.Conv2d(channels, channels * radix, 3, padding=1, groups=cardinality * radix, bias=False)
        self.bn0 = nn.BatchNorm2d(channels * radix)
        self.relu = nn.ReLU(inplace=True)
        self.fc1 = nn.Conv2d(channels, hidden, 1, groups=cardinality)
        self.bn1 = nn.BatchNorm2d(hidden)  # of one value a sample: it cannot train on a single image
        self.fc2 = nn.Conv2d(hidden, channels * radix, 1, groups=cardinality)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        x = self.relu(self.bn0(self.conv(x)))  # (B, radix * C, h, w), the splits one after another
        means = x.mean((2, 3), keepdim=True).unflatten(1, (self.radix, -1)).sum(1)  # (B, C, 1, 1)
        scores = self.fc2(self.relu(self.bn1(self.fc1(means))))
        if self.radix == 1:
            weights = scores.sigmoid()
        else:
            scores = scores.flatten(1).unflatten(1, (self.cardinality, self.radix, -1))  # here the groups come first
            weights = scores.softmax(2).transpose(1, 2).flatten(1)[..., None, None]  # (B, radix * C, 1, 1)
        return functools.reduce(operator.add, (x * weights).chunk(self.radix, 1))


class Bottleneck(nn.Module):
    """1x1, split attention, 1x1 to four times the width, and a shortcut (ResNet-D); average pools do the downsampling."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int, radix: int, cardinality: int, bottleneck_width: int, pool_first: bool
    ):
        super().__init__()
        inner = width * bottleneck_width // 64 * cardinality
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        # this pool counts its padding, that of the shortcut does not
        pool: nn.Module = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        self.pool_before = pool if pool_first else nn.Identity()
        self.pool_after = nn.Identity() if pool_first else pool
        self.conv2 = SplitAttention(inner, cardinality, radix)  # neither norm nor ReLU follow it
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


class ResNeSt(Backbone):
    """A stem of three 3x3 convolutions and four stages at strides 4, 8, 16, 32."""

    def __init__(
        self,
        *,
        depths: tuple[int, ...],
        stem_width: int,
        width: int = 64,
        radix: int = 2,
        cardinality: int = 1,
        bottleneck_width: int = 64,
        pool_first: bool = False,
        zero_init_last: bool = True,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        grad_checkpointing: bool = False,
        in_chans: int = 3,
    ):
        """`pool_first` is the authors' "fast": stride-2 blocks pool before the split attention; `width` is that of stage 1."""
        super().__init__()
        check_use(use)
        self.levels = (3,) if use == "pooled" else pick_levels(levels, 4)
        self.grad_checkpointing = grad_checkpointing
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_chans, stem_width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(inplace=True),
            nn.Conv2d(stem_width, stem_width, 3, padding=1, bias=False),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(inplace=True),
            nn.Conv2d(stem_width, 2 * stem_width, 3, padding=1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(2 * stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stages = nn.ModuleDict()
        channels = 2 * stem_width
        for i, depth in enumerate(depths[: self.levels[-1] + 1]):  # no stage that nobody reads
            stage = nn.Sequential()
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(Bottleneck(channels, width * 2**i, stride, radix, cardinality, bottleneck_width, pool_first))
                channels = width * 2**i * Bottleneck.expansion
            self.stages[f"layer{i + 1}"] = stage
        self.pooling = GlobalAveragePool() if use == "pooled" else nn.Identity()
        self.spec = FeatureSpec(
            tuple(Level(width * 2**i * Bottleneck.expansion, 4 * 2**i) for i in self.levels), embed_dim=channels
        )
        self.apply(initialize)
        if zero_init_last:  # every block starts as its shortcut (paper section 5.1)
            for block in self.modules():
                if isinstance(block, Bottleneck):
                    nn.init.zeros_(block.bn3.weight)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the levels it was built for."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        maps = []
        stage: Any
        for i, stage in enumerate(self.stages.values()):
            for block in stage:
                x = checkpointed(block, x) if self.grad_checkpointing and self.training else block(x)
            if i in self.levels:
                maps.append(x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem, then each block."""
        stage: Any
        groups: list[tuple[str, ...]] = [("conv1.", "bn1.")]
        for name, stage in self.stages.items():
            groups.extend((f"stages.{name}.{j}.",) for j in range(len(stage)))
        return groups


def initialize(module: nn.Module) -> None:
    """Normal of variance 2 / (kernel area * out channels) for convolutions, in groups or not (the authors' code)."""
    if isinstance(module, nn.Conv2d):
        area = module.kernel_size[0] * module.kernel_size[1]
        nn.init.normal_(module.weight, std=(2.0 / (area * module.out_channels)) ** 0.5)


def fast(radix: int, cardinality: int, bottleneck_width: int) -> dict[str, Any]:
    """A row of the ablation study: 4s2x40d is radix 4, cardinality 2, width 40."""
    numbers = {"radix": radix, "cardinality": cardinality, "bottleneck_width": bottleneck_width}
    return {"depths": (3, 4, 6, 3), "stem_width": 32, "pool_first": True, **numbers}


# Paper tables 3 and 1, the authors' `resnest.py` and `ablation.py`; 14 and 26 are GluonCV's; micro is ours.
VARIANTS: dict[str, dict[str, Any]] = {
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


def resnest(
    variant: str = "resnest50",
    *,
    use: Use = "pooled",
    levels: tuple[int, ...] | None = None,
    zero_init_last: bool = True,
    grad_checkpointing: bool = False,
    in_chans: int = 3,
) -> ResNeSt:
    """A ResNeSt by the name of its variant."""
    return ResNeSt(
        **VARIANTS[variant],
        zero_init_last=zero_init_last,
        use=use,
        levels=levels,
        grad_checkpointing=grad_checkpointing,
        in_chans=in_chans,
    )
