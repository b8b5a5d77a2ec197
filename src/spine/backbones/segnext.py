"""SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation (Guo et al., NeurIPS 2022, arXiv 2209.08575).

This is its encoder, MSCAN: a pyramid in which convolutional attention replaces self-attention.
Strip convolutions of several lengths are summed and mixed, and the result weights the features that
it was computed from. The decoder is the `hamburger` head. As a classifier, the encoder averages its
last map. There is no difference from the authors' code.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.checkpointing import run_block
from spine.layers.conv import GlobalAveragePool, LayerNorm2d
from spine.layers.drop_path import DropPath, drop_path_rates
from spine.layers.initialization import zero_bias
from spine.variants import Hyperparameters, System, variant_builder


def depthwise(dim: int, height: int, width: int) -> nn.Conv2d:
    """Depthwise convolution that keeps the size of the map."""
    return nn.Conv2d(dim, dim, (height, width), padding=(height // 2, width // 2), groups=dim)


class MultiScaleGate(nn.Module):
    """Multi-scale convolutional attention: the input times weights that are computed from it (paper
    equation 1).

    The weights are a 1x1 convolution of the sum of four: a depthwise 5x5 convolution, and three
    pairs of strips after it.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.conv0 = depthwise(dim, 5, 5)
        self.conv0_1, self.conv0_2 = depthwise(dim, 1, 7), depthwise(dim, 7, 1)
        self.conv1_1, self.conv1_2 = depthwise(dim, 1, 11), depthwise(dim, 11, 1)
        self.conv2_1, self.conv2_2 = depthwise(dim, 1, 21), depthwise(dim, 21, 1)
        self.conv3 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        local = self.conv0(x)
        total = self.conv0_2(self.conv0_1(local))
        total += local
        total += self.conv1_2(self.conv1_1(local))
        total += self.conv2_2(self.conv2_1(local))
        return self.conv3(total) * x  # without a sigmoid


class Attention(nn.Module):
    """1x1, GELU, gate, 1x1, with a residual connection inside that of the block."""

    def __init__(self, dim: int):
        super().__init__()
        self.proj_1 = nn.Conv2d(dim, dim, 1)
        self.act = nn.GELU()
        self.spatial_gating_unit = MultiScaleGate(dim)
        self.proj_2 = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return self.proj_2(self.spatial_gating_unit(self.act(self.proj_1(x)))) + x


class ConvMLP(nn.Module):
    """1x1, depthwise 3x3, GELU, 1x1."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.dwconv = depthwise(hidden, 3, 3)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class Block(nn.Module):
    """Attention and MLP, each with batch norm, layer scale and a residual connection."""

    def __init__(self, dim: int, mlp_ratio: float, drop_path: float, layer_scale: float):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(dim)
        self.attn = Attention(dim)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), layer_scale))
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = ConvMLP(dim, int(dim * mlp_ratio))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        x = x + self.drop_path(self.layer_scale_1.view(-1, 1, 1) * self.attn(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2.view(-1, 1, 1) * self.mlp(self.norm2(x)))


def stem(in_chans: int, dim: int) -> nn.Sequential:
    """Two 3x3 convolutions to stride 4.

    Like all convolutions of MSCAN they have a bias, although a norm follows.
    """
    layers = [
        nn.Conv2d(in_chans, dim // 2, 3, 2, 1),
        nn.BatchNorm2d(dim // 2),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, 3, 2, 1),
        nn.BatchNorm2d(dim),
    ]
    return nn.Sequential(OrderedDict(proj=nn.Sequential(*layers)))


def downsample(narrow: int, wide: int) -> nn.Sequential:
    """3x3 convolution of stride 2 and batch norm."""
    return nn.Sequential(OrderedDict(proj=nn.Conv2d(narrow, wide, 3, 2, 1), norm=nn.BatchNorm2d(wide)))


def initialize(module: nn.Module) -> None:
    """Convolutions: normal of std sqrt(2 / fan out of one group), biases zero (the authors)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=(2 * module.groups / (module.out_channels * module.weight[0, 0].numel())) ** 0.5)
        zero_bias(module)


class MSCAN(Backbone):
    """Four stages with strides 4, 8, 16, 32.

    A layer norm ends each stage; its output is the map, and the input of the next stage.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        dims: tuple[int, ...],
        mlp_ratios: tuple[float, ...] = (8.0, 8.0, 4.0, 4.0),
        layer_scale: float = 1e-2,
        *,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        drop_path_rate: float = 0.0,
        grad_checkpointing: bool = False,
        in_chans: int = 3,
    ):
        super().__init__()
        check_use(use)
        self.grad_checkpointing = grad_checkpointing
        self.levels = (len(dims) - 1,) if use == "pooled" else pick_levels(levels, len(dims))
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.depths = depths[: self.levels[-1] + 1]  # later stages are not needed
        # keys start from 1, as in the authors' code
        self.patch_embed, self.block, self.norm = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for i, depth in enumerate(self.depths):
            blocks = (Block(dims[i], mlp_ratios[i], next(rates), layer_scale) for _ in range(depth))
            self.patch_embed[str(i + 1)] = downsample(dims[i - 1], dims[i]) if i else stem(in_chans, dims[i])
            self.block[str(i + 1)] = nn.Sequential(*blocks)
            self.norm[str(i + 1)] = LayerNorm2d(dims[i])
        self.pooling = GlobalAveragePool() if use == "pooled" else nn.Identity()
        self.spec = FeatureSpec(tuple(Level(dims[i], 4 * 2**i) for i in self.levels), embed_dim=dims[self.levels[-1]])
        self.apply(initialize)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ceil(H / stride_i), ceil(W / stride_i)) of the chosen levels."""
        x, maps = image, []
        for i, (number, blocks) in enumerate(self.block.items()):
            x = self.patch_embed[number](x)
            for block in blocks.children():
                x = run_block(self, block, x)
            x = self.norm[number](x)
            if i in self.levels:
                maps.append(x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem; each block; the last norm.

        The first block of a stage includes the layers between the stages.
        """
        groups: list[tuple[str, ...]] = [("patch_embed.1.",)]
        for i, depth in enumerate(self.depths, start=1):
            start = len(groups)
            groups += [(f"block.{i}.{j}.",) for j in range(depth)]
            if i > 1:
                groups[start] += (f"norm.{i - 1}.", f"patch_embed.{i}.")
        return [*groups, (f"norm.{len(self.depths)}.", "pooling.")]


# Paper table 2; micro is ours. Drop path rates belong to the training recipes.
VARIANTS: dict[str, Hyperparameters] = {
    "micro": {"depths": (2, 2, 3, 2), "dims": (16, 32, 80, 128), "layer_scale": 0.1},  # 0.01 is for long trainings
    "tiny": {"depths": (3, 3, 5, 2), "dims": (32, 64, 160, 256)},
    "small": {"depths": (2, 2, 4, 2), "dims": (64, 128, 320, 512)},
    "base": {"depths": (3, 3, 12, 3), "dims": (64, 128, 320, 512)},
    "large": {"depths": (3, 5, 27, 3), "dims": (64, 128, 320, 512)},
}

# The decoders of SegNeXt-B and -L; T and S have the head's defaults. The authors' code has 64 bases by default, and their
# configurations of T and S set 16. OpenMMLab's networks B and L have 16; their layout sets it.
SYSTEMS: dict[str, dict[str, System]] = {
    "hamburger": {"base": System(head={"channels": 512, "rank": 64}), "large": System(head={"channels": 1024, "rank": 64})}
}


@variant_builder(MSCAN)
def segnext(variant: str = "base", **options: Any) -> MSCAN:
    """Builds the encoder of a SegNeXt by the name of its variant."""
    return MSCAN(**VARIANTS[variant], **options)
