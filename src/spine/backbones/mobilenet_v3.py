"""MobileNetV3: Searching for MobileNetV3 (Howard et al., ICCV 2019, arXiv 1905.02244).

Inverted residuals found by architecture search, with squeeze-and-excitation and hard swish where they pay, and a last stage that
averages before its widest layer. Layers follow the authors' code (TF-slim), whose numbers the variants have: the last 1x1
convolution has no squeeze-and-excitation, although the paper's table of Small marks one, and the hidden layer is not scaled with the
width. Padding is symmetric and weights start as in torchvision (TensorFlow pads stride-2 convolutions at the right and bottom:
`tf_padding=True`). The dropout before the last linear layer, 0.2 (the paper's 0.8 is what is kept), belongs to the head.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.conv import conv_norm, conv_norm_act, round_channels

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
    """Scales each channel by a hard sigmoid of what two 1x1 convolutions make of all averages (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int, act: type[nn.Module] = nn.Identity):
        """`act` follows."""
        super().__init__()
        squeezed = round_channels(channels / 4)  # of the EXPANDED channels
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()
        self.act = act(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return self.act(x * self.gate(self.fc2(self.relu(self.fc1(x.mean((2, 3), keepdim=True))))))


class InvertedResidual(nn.Module):
    """1x1 expansion (none where the expansion is 1), depthwise, squeeze-and-excitation, linear 1x1 projection (paper figure 4)."""

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel: int,
        stride: int,
        squeeze: bool,
        act: type[nn.Module],
        squeeze_before_act: bool,
        tf_padding: bool,
    ):
        super().__init__()
        self.residual = stride == 1 and in_channels == out_channels
        self.block = nn.Sequential()
        expands = hidden != in_channels
        early, late = (nn.Identity, act) if squeeze and squeeze_before_act and expands else (act, nn.Identity)
        if expands:
            self.block.append(conv_norm_act(in_channels, hidden, 1, act=act))
        self.block.append(conv_norm_act(hidden, hidden, kernel, stride, hidden, early, same=tf_padding))
        if squeeze:
            self.block.append(SqueezeExcite(hidden, late))
        self.block.append(conv_norm(hidden, out_channels, 1))  # linear: no activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        return x + self.block(x) if self.residual else self.block(x)


class HiddenLayerPool(nn.Module):
    """1x1 convolution, global average, THEN the widest layer, with a bias and without a norm: Features -> (B, D)."""

    def __init__(self, in_channels: int, wide: int, embed_dim: int, act: type[nn.Module]):
        super().__init__()
        self.conv = conv_norm_act(in_channels, wide, 1, act=act)
        self.hidden = nn.Linear(wide, embed_dim)
        self.act = act(inplace=True)

    def forward(self, features: Features) -> Tensor:
        """Features -> (B, D)."""
        return self.act(self.hidden(self.conv(features.maps[-1]).mean((2, 3))))


class MobileNetV3(Backbone):
    """Maps at strides 4, 8, 16, 32; the last 1x1 convolution and the hidden layer belong to pooling."""

    def __init__(
        self,
        *,
        rows: Rows,
        embed_dim: int,
        width: float = 1.0,
        stem: int | None = None,
        minimal: bool = False,
        norm_eps: float = 1e-3,
        norm_momentum: float = 0.01,
        squeeze_before_act: bool = False,
        tf_padding: bool = False,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        in_chans: int = 3,
    ):
        """`minimal` has 3x3 kernels and ReLU only, and no squeeze-and-excitation; `stem` is a width that is not scaled.

        `squeeze_before_act`: where a block expands, the depthwise convolution's activation follows the squeeze-and-excitation
        (d-li14's port); `tf_padding` pads stride-2 convolutions as TensorFlow does.
        """
        super().__init__()
        check_use(use)
        self.levels = (3,) if use == "pooled" else pick_levels(levels, 4)
        self.norm_eps, self.norm_momentum = norm_eps, norm_momentum
        smooth: type[nn.Module] = nn.ReLU if minimal else nn.Hardswish
        channels = stem or round_channels(16 * width)
        layers: list[nn.Module] = [conv_norm_act(in_chans, channels, 3, 2, act=smooth, same=tf_padding)]
        widths = [channels]
        for kernel, expansion, base, squeeze, swish, stride in rows:
            hidden, out = round_channels(channels * expansion), round_channels(base * width)
            act, kernel = (smooth if swish else nn.ReLU), (3 if minimal else kernel)
            squeeze = squeeze and not minimal
            layers.append(InvertedResidual(channels, hidden, out, kernel, stride, squeeze, act, squeeze_before_act, tf_padding))
            channels = out
            widths.append(out)
        strided = [i for i, row in enumerate(rows, start=1) if row[-1] == 2]
        ends = [*(i - 1 for i in strided[1:]), len(rows)]  # the last layers at strides 4, 8, 16, 32
        self.last_blocks = [ends[i] for i in self.levels]
        self.features = nn.ModuleList(layers[: self.last_blocks[-1] + 1])
        self.pooling = HiddenLayerPool(channels, hidden, embed_dim, smooth) if use == "pooled" else nn.Identity()
        self.spec = FeatureSpec(
            tuple(Level(widths[ends[i]], 4 * 2**i) for i in self.levels),
            embed_dim=embed_dim if use == "pooled" else widths[self.last_blocks[-1]],
        )
        self.apply(self._initialize)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the levels it was built for."""
        x, maps = image, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.last_blocks:
                maps.append(x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem, each block, the last convolution with the hidden layer."""
        return [*((f"features.{i}.",) for i in range(len(self.features))), ("pooling.",)]

    def _initialize(self, module: nn.Module) -> None:
        """Kaiming normal over the fan out for convolutions, std 0.01 for the hidden layer (torchvision); the norms' numbers."""
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        elif isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = self.norm_eps, self.norm_momentum
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


# Paper tables 1 to 3 and the authors' table of minimalistic models; small_050 is timm's; micro is ours.
VARIANTS: dict[str, dict[str, Any]] = {
    "micro": {"rows": SMALL, "embed_dim": 256, "width": 0.5, "norm_momentum": 0.1},  # its trainings are short
    "large_100": {"rows": LARGE, "embed_dim": 1280},
    "large_075": {"rows": LARGE, "embed_dim": 1280, "width": 0.75},
    "large_minimal_100": {"rows": LARGE, "embed_dim": 1280, "minimal": True},
    "small_100": {"rows": SMALL, "embed_dim": 1024},
    "small_075": {"rows": SMALL, "embed_dim": 1024, "width": 0.75},
    "small_050": {"rows": SMALL, "embed_dim": 1024, "width": 0.5, "stem": 16},
    "small_minimal_100": {"rows": SMALL, "embed_dim": 1024, "minimal": True},
}


def mobilenet_v3(
    variant: str = "large_100",
    *,
    norm_eps: float = 1e-3,
    squeeze_before_act: bool = False,
    tf_padding: bool = False,
    use: Use = "pooled",
    levels: tuple[int, ...] | None = None,
    in_chans: int = 3,
) -> MobileNetV3:
    """A MobileNetV3 by the name of its variant."""
    return MobileNetV3(
        **VARIANTS[variant],
        norm_eps=norm_eps,
        squeeze_before_act=squeeze_before_act,
        tf_padding=tf_padding,
        use=use,
        levels=levels,
        in_chans=in_chans,
    )
