"""MobileNetV3: Searching for MobileNetV3 (Howard et al., ICCV 2019, arXiv 1905.02244).

Inverted residuals found by architecture search, with squeeze-and-excitation and hard swish in some
blocks, and a last stage that averages before its widest layer.

Layers follow the authors' code (TF-slim), with the hyperparameters of its models: the last 1x1
convolution has no squeeze-and-excitation, although the paper's table of Small marks one, and the
hidden layer is not scaled with the width. Padding and initialization are torchvision's: padding is
symmetric (TensorFlow pads stride-2 convolutions at the right and bottom: `tf_padding=True`). The
dropout of 0.2 before the last linear layer is an option of the head (the paper's 0.8 is the keep
probability).

With an output stride below 32 (section 6.4), the block whose stride is removed and those after it are
dilated, as in torchvision and OpenMMLab. For LR-ASPP, torchvision reads the coarsest map after the
last 1x1 convolution, `last_conv=True`, and the finer maps after the first block of their stride,
`first_blocks=True`. OpenMMLab also reads a map of stride 2, `stride_2_map=True`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.conv import conv_norm, conv_norm_act, round_channels, set_batch_norm
from spine.layers.dilation import dilate
from spine.layers.initialization import kaiming_fan_out, zero_bias
from spine.variants import Hyperparameters, System, variant_builder

# Paper tables 1 and 2: kernel, expansion, channels, squeeze-and-excitation, hard swish, stride
Rows = tuple[tuple[int, float, int, bool, bool, int], ...]
LARGE: Rows = (
    (3, 1, 16, False, False, 1),
    (3, 4, 24, False, False, 2),
    (3, 3, 24, False, False, 1),
    (5, 3, 40, True, False, 2),
    (5, 3, 40, True, False, 1),
    (5, 3, 40, True, False, 1),
    (3, 6, 80, False, True, 2),
    (3, 2.5, 80, False, True, 1),
    (3, 2.3, 80, False, True, 1),
    (3, 2.3, 80, False, True, 1),
    (3, 6, 112, True, True, 1),
    (3, 6, 112, True, True, 1),
    (5, 6, 160, True, True, 2),
    (5, 6, 160, True, True, 1),
    (5, 6, 160, True, True, 1),
)
SMALL: Rows = (
    (3, 1, 16, True, False, 2),
    (3, 4.5, 24, False, False, 2),
    (3, 3.67, 24, False, False, 1),
    (5, 4, 40, True, True, 2),
    (5, 6, 40, True, True, 1),
    (5, 6, 40, True, True, 1),
    (5, 3, 48, True, True, 1),
    (5, 3, 48, True, True, 1),
    (5, 6, 96, True, True, 2),
    (5, 6, 96, True, True, 1),
    (5, 6, 96, True, True, 1),
)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation with a hard sigmoid gate (Hu et al., arXiv 1709.01507)."""

    def __init__(
        self,
        channels: int,
        act: type[nn.Module] = nn.Identity,
        *,
        squeezed: int | None = None,
        inner_act: type[nn.Module] = nn.ReLU,
    ):
        """`act`: an activation after the scaling. `inner_act`: between the two layers.

        `squeezed`: the channels between the two layers; None for a quarter, as a multiple of 8.
        """
        super().__init__()
        squeezed = squeezed or round_channels(channels / 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.inner_act = inner_act(inplace=True)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()
        self.act = act(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return self.act(x * self.gate(self.fc2(self.inner_act(self.fc1(x.mean((2, 3), keepdim=True))))))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise, squeeze-and-excitation, linear 1x1 projection (paper figure 4).

    There is no expansion if `hidden` equals `in_channels`.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel: int,
        stride: int,
        dilation: int,
        squeeze: bool,
        act: type[nn.Module],
        squeeze_before_act: bool,
        tf_padding: bool,
        rw: bool,
    ):
        super().__init__()
        self.hidden, self.out_channels = hidden, out_channels
        expands = hidden != in_channels
        self.residual = stride == 1 and in_channels == out_channels and (expands or not rw)
        self.block = nn.Sequential()
        early, late = (nn.Identity, act) if squeeze and squeeze_before_act and expands else (act, nn.Identity)
        if expands:
            self.block.append(conv_norm_act(in_channels, hidden, 1, act=act))
        self.block.append(conv_norm_act(hidden, hidden, kernel, stride, hidden, early, dilation=dilation, same=tf_padding))
        if squeeze:
            of_rw: dict[str, Any] = {"squeezed": round(hidden / 4), "inner_act": act} if rw else {}
            self.block.append(SqueezeExcite(hidden, late, **of_rw))
        self.block.append(conv_norm(hidden, out_channels, 1))  # linear: no activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        return x + self.block(x) if self.residual else self.block(x)


def inverted_residuals(
    rows: Rows, channels: int, width: float, output_stride: int, *, minimal: bool, rw: bool, **conventions: bool
) -> list[InvertedResidual]:
    """The blocks of a table, after a stem of `channels`. `conventions`: arguments of InvertedResidual."""
    blocks = []
    steps = dilate([row[-1] for row in rows], output_stride, inclusive=True)
    for (kernel, expansion, base, squeeze, swish, _), (stride, dilation) in zip(rows, steps, strict=True):
        hidden, out = round_channels(channels * expansion), round_channels(base * width)
        act = nn.Hardswish if swish and not minimal else nn.ReLU
        kernel, squeeze = (3, False) if minimal else (kernel, squeeze)
        shape = (channels, hidden, out, kernel, stride, dilation)
        blocks.append(InvertedResidual(*shape, squeeze, act, rw=rw, **conventions))
        channels = out
    return blocks


class HiddenLayerPool(nn.Module):
    """1x1 convolution, global average, then the widest layer, which has a bias and no norm."""

    def __init__(self, in_channels: int, wide: int, embed_dim: int, act: type[nn.Module], bias: bool):
        super().__init__()
        self.conv = conv_norm_act(in_channels, wide, 1, act=act)
        self.hidden = nn.Linear(wide, embed_dim, bias)
        self.act = act(inplace=True)

    def forward(self, features: Features) -> Tensor:
        """Features -> (B, D)."""
        return self.act(self.hidden(self.conv(features.maps[-1]).mean((2, 3))))


class MobileNetV3(Backbone):
    """Maps with strides 4, 8, 16, 32, at most the output stride; with `stride_2_map` also one of stride 2.

    The last 1x1 convolution and the hidden layer are part of pooling; with `last_conv` the coarsest
    map is the output of that convolution.
    """

    def __init__(
        self,
        rows: Rows,
        embed_dim: int,
        width: float = 1.0,
        stem: int | None = None,
        minimal: bool = False,
        rw: bool = False,
        norm_momentum: float = 0.01,
        *,
        norm_eps: float = 1e-3,
        squeeze_before_act: bool = False,
        tf_padding: bool = False,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        output_stride: int = 32,
        last_conv: bool = False,
        first_blocks: bool = False,
        stride_2_map: bool = False,
        in_chans: int = 3,
    ):
        """`minimal`: 3x3 kernels and ReLU only, no squeeze-and-excitation.

        `stem`: channels of the stem, if `width` does not scale it. `rw`: timm's mobilenetv3_rw: other
        channels and activations in squeeze-and-excitation, no residual connection in the first block,
        no bias in the hidden layer.
        """
        super().__init__()
        check_use(use)
        map_strides = ([2] if stride_2_map else []) + [4, 8, 16, 32]
        self.levels = (len(map_strides) - 1,) if use == "pooled" else pick_levels(levels, len(map_strides))
        act: type[nn.Module] = nn.ReLU if minimal else nn.Hardswish
        stem = stem or round_channels(16 * width)
        first = conv_norm_act(in_chans, stem, 3, 2, act=act, same=tf_padding)
        conventions = {"squeeze_before_act": squeeze_before_act, "tf_padding": tf_padding}
        blocks = inverted_residuals(rows, stem, width, output_stride, minimal=minimal, rw=rw, **conventions)
        strided = [i for i, row in enumerate(rows, start=1) if row[-1] == 2]
        # the layers of the maps with strides 4, 8, 16, 32: the last ones of each stride, or the first ones
        ends = [*(strided[:3] if first_blocks else (i - 1 for i in strided[1:])), len(rows)]
        ends = [strided[0] - 1, *ends] if stride_2_map else ends
        self.map_layers = [ends[i] for i in self.levels]
        self.features = nn.ModuleList([first, *blocks][: self.map_layers[-1] + 1])
        widths = [blocks[i - 1].out_channels if i else stem for i in self.map_layers]
        wide, self.last_conv = blocks[-1].hidden, last_conv and use == "maps" and self.map_layers[-1] == len(rows)
        self.pooling: nn.Module = nn.Identity()
        if use == "pooled":
            self.pooling = HiddenLayerPool(widths[-1], wide, embed_dim, act, bias=not rw)
        elif self.last_conv:  # under the name of the convolution in pooling, for weight files
            self.pooling = nn.ModuleDict({"conv": conv_norm_act(widths[-1], wide, 1, act=act)})
            widths[-1] = wide
        strides = [min(map_strides[i], output_stride) for i in self.levels]
        self.spec = FeatureSpec(tuple(map(Level, widths, strides)), embed_dim if use == "pooled" else widths[-1])
        self._initialize()
        set_batch_norm(self, norm_eps, norm_momentum)

    def _initialize(self) -> None:
        """Initialization of torchvision.

        Convolutions Kaiming normal over the fan out, the hidden layer normal of std 0.01, biases zero.
        """
        self.apply(kaiming_fan_out)
        self.apply(zero_bias)
        if isinstance(self.pooling, HiddenLayerPool):
            nn.init.normal_(self.pooling.hidden.weight, std=0.01)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the chosen levels."""
        x, maps = image, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.map_layers:
                maps.append(x)
        if self.last_conv:
            maps[-1] = self.pooling.get_submodule("conv")(maps[-1])
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem; each block; the last convolution with the hidden layer."""
        return [*((f"features.{i}.",) for i in range(len(self.features))), ("pooling.",)]


# Paper tables 1 to 3 and the authors' table of minimalistic models; small_050 and large_rw are timm's; micro is ours, for short trainings.
VARIANTS: dict[str, Hyperparameters] = {
    "micro": {"rows": SMALL, "embed_dim": 256, "width": 0.5, "norm_momentum": 0.1},
    "large_100": {"rows": LARGE, "embed_dim": 1280},
    "large_075": {"rows": LARGE, "embed_dim": 1280, "width": 0.75},
    "large_minimal_100": {"rows": LARGE, "embed_dim": 1280, "minimal": True},
    "large_rw": {"rows": LARGE, "embed_dim": 1280, "rw": True},
    "small_100": {"rows": SMALL, "embed_dim": 1024},
    "small_075": {"rows": SMALL, "embed_dim": 1024, "width": 0.75},
    "small_050": {"rows": SMALL, "embed_dim": 1024, "width": 0.5, "stem": 16},
    "small_minimal_100": {"rows": SMALL, "embed_dim": 1024, "minimal": True},
}

# torchvision's LR-ASPP; the paper's networks also have half of the channels in the last blocks.
SYSTEMS: dict[str, dict[str, System]] = {
    "lraspp": dict.fromkeys(VARIANTS, System(backbone={"output_stride": 16, "last_conv": True, "first_blocks": True}))
}


@variant_builder(MobileNetV3)
def mobilenet_v3(variant: str = "large_100", **options: Any) -> MobileNetV3:
    """Builds a MobileNetV3 by the name of its variant.

    squeeze_before_act: in blocks that expand, the activation of the depthwise convolution follows
    the squeeze-and-excitation (d-li14's port). tf_padding: pads stride-2 convolutions as TensorFlow
    does. norm_eps: of batch norms. output_stride: 8, 16 or 32, the stride of the coarsest map.
    last_conv: the coarsest map is the output of the last 1x1 convolution. first_blocks: the other
    maps are those of the first block of their stride. stride_2_map: a fifth map, of stride 2, is the
    first level.
    """
    return MobileNetV3(**VARIANTS[variant], **options)
