"""MobileNetV2: Inverted Residuals and Linear Bottlenecks (Sandler et al., CVPR 2018, arXiv 1801.04381).

Residual connections join thin linear bottlenecks. Inside a block the channels are expanded,
filtered by a depthwise convolution, and projected back without an activation.

Padding is symmetric and batch norm has PyTorch's defaults, as in torchvision and timm. TensorFlow's
original pads stride-2 convolutions at the right and bottom, and has eps 1e-3: `tf_padding=True,
norm_eps=1e-3`. `features` is numbered as in torchvision.

With an output stride below 32 (section 6.3, DeepLab), blocks after a removed stride are dilated, as in
TF-slim. OpenMMLab dilates the first block of each stage only, and the block whose stride is removed
too: `dilate_first=True`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.conv import GlobalAveragePool, conv_norm, conv_norm_act, round_channels, set_batch_norm
from spine.layers.dilation import dilate
from spine.layers.initialization import kaiming_fan_out
from spine.variants import Hyperparameters, System, variant_builder

# Paper table 2: expansion, channels, repeats, stride
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
REPEATS = tuple(row[2] for row in STAGES)
LAST_STAGES = (1, 2, 4, 6)  # of the strides 4, 8, 16, 32


class InvertedResidual(nn.Module):
    """1x1 expansion (none if it is 1), 3x3 depthwise, linear 1x1 projection (figure 3b, section 3.3)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int, expansion: int, tf_padding: bool):
        super().__init__()
        hidden = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential()
        if expansion > 1:
            self.conv.append(conv_norm_act(in_channels, hidden, 1, act=nn.ReLU6))
        self.conv.append(conv_norm_act(hidden, hidden, 3, stride, hidden, nn.ReLU6, dilation=dilation, same=tf_padding))
        self.conv.extend(conv_norm(hidden, out_channels, 1))  # linear: no activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(Backbone):
    """Maps with strides 4, 8, 16, 32, at most the output stride.

    The last 1x1 convolution, to 1280 channels or more, is part of pooling.
    """

    def __init__(
        self,
        width: float,
        repeats: tuple[int, ...] = REPEATS,
        stem: int | None = None,
        wide: int | None = None,
        *,
        norm_eps: float = 1e-5,
        tf_padding: bool = False,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        output_stride: int = 32,
        dilate_first: bool = False,
        in_chans: int = 3,
    ):
        """`width`: factor of all channels. `repeats`: blocks of each stage.

        `stem`, `wide`: channels of the first and of the last convolution, if `width` does not scale them.
        """
        super().__init__()
        check_use(use)
        self.levels = (3,) if use == "pooled" else pick_levels(levels, 4)
        # entries of `features`, of which the stem is the first
        self.last_blocks = [sum(repeats[: LAST_STAGES[i] + 1]) for i in self.levels]
        channels = stem or round_channels(32 * width)
        layers: list[nn.Module] = [conv_norm_act(in_chans, channels, 3, 2, act=nn.ReLU6, same=tf_padding)]
        widths = [channels]
        rows = [(row, i == 0) for row, count in zip(STAGES, repeats, strict=True) for i in range(count)]
        steps = dilate([row[3] if first else 1 for row, first in rows], output_stride, inclusive=dilate_first)
        for ((expansion, base, _, _), first), (stride, dilation) in zip(rows, steps, strict=True):
            out = round_channels(base * width)
            dilation = dilation if first or not dilate_first else 1
            layers.append(InvertedResidual(channels, out, stride, dilation, expansion, tf_padding))
            channels = out
            widths.append(out)
        self.features = nn.ModuleList(layers[: self.last_blocks[-1] + 1])
        embed_dim = widths[self.last_blocks[-1]]
        self.pooling: nn.Module = nn.Identity()
        if use == "pooled":
            embed_dim = wide or round_channels(1280 * max(width, 1.0))  # at least 1280
            self.pooling = GlobalAveragePool()
            self.pooling.add_module("conv", conv_norm_act(channels, embed_dim, 1, act=nn.ReLU6))
        strides = [min(4 * 2**i, output_stride) for i in self.levels]
        found = (Level(widths[block], stride) for block, stride in zip(self.last_blocks, strides, strict=True))
        self.spec = FeatureSpec(tuple(found), embed_dim)
        self.apply(kaiming_fan_out)  # torchvision
        set_batch_norm(self, norm_eps)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the chosen levels."""
        x, maps = image, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.last_blocks:
                maps.append(x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem; each block; the last convolution."""
        return [*((f"features.{i}.",) for i in range(len(self.features))), ("pooling.",)]


# Paper table 4 and the authors' table of widths; w110d and w120d are timm's deeper networks; micro is ours.
VARIANTS: dict[str, Hyperparameters] = {
    "micro": {"width": 0.25},
    "w035": {"width": 0.35},
    "w050": {"width": 0.5},
    "w075": {"width": 0.75},
    "w100": {"width": 1.0},
    "w110d": {"width": 1.1, "repeats": (1, 3, 4, 5, 4, 4, 1), "stem": 32, "wide": 1280},
    "w120d": {"width": 1.2, "repeats": (1, 3, 5, 6, 5, 5, 1), "stem": 32, "wide": 1280},
    "w130": {"width": 1.3},
    "w140": {"width": 1.4},
}

# OpenMMLab's DeepLabv3+. The paper's own head (section 6.3) has neither dilated convolutions nor a decoder (see `heads.aspp`).
SYSTEMS: dict[str, dict[str, System]] = {
    "aspp": dict.fromkeys(
        VARIANTS,
        System(
            head={"channels": 512, "bottleneck_kernel": 3},
            backbone={"output_stride": 8, "dilate_first": True},
            auxiliary_head={"level": 2},
        ),
    )
}


@variant_builder(MobileNetV2)
def mobilenet_v2(variant: str = "w100", **options: Any) -> MobileNetV2:
    """Builds a MobileNetV2 by the name of its variant.

    tf_padding: pads stride-2 convolutions as TensorFlow does. norm_eps: of batch norms.
    output_stride: 8, 16 or 32, the stride of the coarsest map. dilate_first: OpenMMLab's dilation.
    """
    return MobileNetV2(**VARIANTS[variant], **options)
