"""Convolutional layers and pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.interfaces import Features


def round_channels(channels: float) -> int:
    """Rounds to a multiple of 8, at least 8.

    Rounds up if the nearest multiple is more than 10 % smaller (the MobileNets).
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pads maps (B, C, h, w) for ceil(side / stride) outputs, like TensorFlow's SAME.

    If the number of rows or columns to add is odd, the bottom or right side gets one more.
    """
    down, right = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
    return F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2), value=value)


class SameConv2d(nn.Conv2d):
    """Convolution with a square kernel and TensorFlow's SAME padding."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', ceil(h / stride), ceil(w / stride))."""
        x = pad_same(x, self.kernel_size[0], self.stride[0])
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    *,
    dilation: int = 1,
    bias: bool = False,
    same: bool = False,
) -> nn.Sequential:
    """Convolution, padded by half the (dilated) kernel, and batch norm.

    `same`: with TensorFlow's SAME padding.
    """
    convolution = SameConv2d if same and stride > 1 else nn.Conv2d  # for stride 1 both paddings are equal
    padding = kernel // 2 * dilation
    return nn.Sequential(
        convolution(in_channels, out_channels, kernel, stride, padding, dilation=dilation, groups=groups, bias=bias),
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
    dilation: int = 1,
    bias: bool = False,
    same: bool = False,
) -> nn.Sequential:
    """`conv_norm`, and an activation in place."""
    layers = conv_norm(in_channels, out_channels, kernel, stride, groups, dilation=dilation, bias=bias, same=same)
    return layers.append(act(inplace=True))


def separable_conv(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    """Depthwise 3x3 and 1x1 convolution, each with batch norm and ReLU (DeepLabv3+)."""
    return nn.Sequential(
        conv_norm_act(in_channels, in_channels, 3, groups=in_channels, dilation=dilation),
        conv_norm_act(in_channels, out_channels, 1),
    )


def set_batch_norm(net: nn.Module, eps: float, momentum: float = 0.1) -> None:
    """Sets eps and momentum of all batch norms of a network."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = eps, momentum


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of maps (B, C, h, w).

    For channels_last maps the permutations do not copy.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GlobalAveragePool(nn.Sequential):
    """Applies its layers, if any, to the coarsest map, and averages over all positions."""

    def forward(self, features: Features) -> Tensor:
        """Features -> (B, C)."""
        return super().forward(features.maps[-1]).mean((2, 3))


class PoolNorm(nn.Module):
    """Global average of the coarsest map, then layer norm."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, features: Features) -> Tensor:
        """Features -> (B, C)."""
        return self.norm(features.maps[-1].mean((2, 3)))


def resize_map(x: Tensor, size: Sequence[int], mode: str = "bilinear", align_corners: bool = False) -> Tensor:
    """Resizes maps (B, C, h, w) to `size` (height, width).

    Returns `x` if it has that size. `align_corners`: of the bilinear filter.
    """
    if _is_size(x, size):
        return x
    return F.interpolate(x, tuple(size), mode=mode, align_corners=align_corners if mode == "bilinear" else None)


def _is_size(x: Tensor, size: Sequence[int]) -> bool:
    if torch.compiler.is_exporting():  # sizes may be symbols, and a plain comparison would restrict the graph to one answer
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return all(statically_known_true(here == wanted) for here, wanted in zip(x.shape[-2:], size, strict=True))
    return tuple(x.shape[-2:]) == tuple(size)
