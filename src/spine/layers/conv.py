"""Convolutional parts that backbones and heads share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def round_channels(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and one step up where rounding would lose more than a tenth (the MobileNets)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class SameConv2d(nn.Conv2d):
    """Pads as TensorFlow's SAME: what ceil(side / stride) outputs need, the odd row at the bottom, the odd column at the right."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', ceil(h / stride), ceil(w / stride))."""
        down, across = (
            max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
            for side, stride, kernel in zip(x.shape[-2:], self.stride, self.kernel_size, strict=True)
        )
        x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def conv_norm(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1, *, same: bool = False
) -> nn.Sequential:
    """Convolution without bias that keeps the size (up to its stride), then batch norm. `same` pads strides as TensorFlow."""
    convolution = SameConv2d if same and stride > 1 else nn.Conv2d  # the two pad alike where nothing strides
    return nn.Sequential(
        convolution(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    act: type[nn.Module] = nn.ReLU,
    *,
    same: bool = False,
) -> nn.Sequential:
    """conv_norm, then an activation in place."""
    return conv_norm(in_channels, out_channels, kernel, stride, groups, same=same).append(act(inplace=True))


def initialise_by_inputs(module: nn.Module) -> None:
    """Convolutions normal of std 1 / (input channels of a group), norms' biases 0.0001: the authors' ShuffleNets."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=1.0 / module.weight.shape[1])
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.constant_(module.bias, 0.0001)


def initialize_stem(module: nn.Module) -> None:
    """Convolutions normal of std 0.01: the authors' ShuffleNets where they read the image."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.01)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a map (B, C, h, w). The permutes are views where the map is channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GlobalAveragePool(nn.Module):
    """Mean of the coarsest map: Features -> (B, C)."""

    def forward(self, features) -> Tensor:
        """Features -> (B, C)."""
        return features.maps[-1].mean((2, 3))


class PoolNorm(nn.Module):
    """Mean of the coarsest map, THEN layer norm: Features -> (B, C)."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, features) -> Tensor:
        """Features -> (B, C)."""
        return self.norm(features.maps[-1].mean((2, 3)))


def resize_map(x: Tensor, size: Sequence[int], mode: str = "bilinear") -> Tensor:
    """Resizes maps (B, C, h, w) to `size`; nothing is done where they have it."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode=mode, align_corners=False if mode == "bilinear" else None)
