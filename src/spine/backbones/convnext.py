"""ConvNeXt: A ConvNet for the 2020s (Liu et al., CVPR 2022, arXiv 2201.03545).

A ResNet redesigned step by step after the Swin Transformer: a patchify stem, depthwise 7x7
convolutions, an inverted bottleneck of two linear layers, one norm and one activation per block,
separate downsampling layers. There is no difference from the authors' code.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.checkpointing import run_block
from spine.layers.conv import LayerNorm2d, PoolNorm
from spine.layers.drop_path import DropPath, drop_path_rates
from spine.layers.initialization import truncated_normal
from spine.variants import Hyperparameters, System, variant_builder

EPS = 1e-6  # of all norms


class Block(nn.Module):
    """Depthwise 7x7, layer norm, linear to 4C, GELU, linear to C, layer scale (section 2.6, figure 4)."""

    def __init__(self, dim: int, drop_path: float, layer_scale: float):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.pwconv1 = nn.Linear(dim, 4 * dim)  # a 1x1 convolution, as a linear layer because channels are last
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale)) if layer_scale > 0 else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        branch = self.dwconv(x).permute(0, 2, 3, 1)  # (B, h, w, C)
        branch = self.pwconv2(self.act(self.pwconv1(self.norm(branch))))
        if self.gamma is not None:
            branch = self.gamma * branch
        return x + self.drop_path(branch.permute(0, 3, 1, 2))


class ConvNeXt(Backbone):
    """Four stages with strides 4, 8, 16, 32.

    It has one norm per level for "maps", and one norm after the average for "pooled".
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        dims: tuple[int, ...],
        *,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        drop_path_rate: float = 0.0,
        layer_scale: float = 1e-6,
        grad_checkpointing: bool = False,
        pool_norm_eps: float = EPS,
        in_chans: int = 3,
    ):
        """`layer_scale`: initial value of the layer scale; 0 for none."""
        super().__init__()
        check_use(use)
        self.grad_checkpointing = grad_checkpointing
        self.levels = (len(dims) - 1,) if use == "pooled" else pick_levels(levels, len(dims))
        depths, dims = depths[: self.levels[-1] + 1], dims[: self.levels[-1] + 1]  # later stages are not needed
        stem = nn.Sequential(nn.Conv2d(in_chans, dims[0], 4, 4), LayerNorm2d(dims[0], eps=EPS))
        self.downsample_layers = nn.ModuleList([stem])
        for narrow, wide in itertools.pairwise(dims):  # here the norm comes before the convolution
            self.downsample_layers.append(nn.Sequential(LayerNorm2d(narrow, eps=EPS), nn.Conv2d(narrow, wide, 2, 2)))
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.depths = depths
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim, next(rates), layer_scale) for _ in range(depth)))
            for depth, dim in zip(depths, dims, strict=True)
        )
        norms = {str(i): LayerNorm2d(dims[i], eps=EPS) for i in self.levels} if use == "maps" else {}
        self.norms = nn.ModuleDict(norms)
        self.pooling = PoolNorm(dims[-1], pool_norm_eps) if use == "pooled" else nn.Identity()
        self.spec = FeatureSpec(tuple(Level(dims[i], 4 * 2**i) for i in self.levels), embed_dim=dims[-1])
        self.apply(truncated_normal)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the chosen levels."""
        x, maps = image, []
        for i, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = downsample(x)
            for block in stage.children():
                x = run_block(self, block, x)
            if i in self.levels:
                maps.append(self.norms[str(i)](x) if self.norms else x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem; each stage with its downsampling, the third in groups of three blocks; the norms.

        As in the authors' code (`optim_factory.py`), the last stage is the 12th group for any depth: groups
        of a third stage with fewer than 27 blocks are empty, so that the learning rates of layer decay are
        those of the deeper networks.
        """
        groups: list[tuple[str, ...]] = [("downsample_layers.0.",)]
        for i, depth in enumerate(self.depths):
            size = 3 if i == 2 else depth
            for start in range(0, depth, size):
                blocks = tuple(f"stages.{i}.{j}." for j in range(start, min(start + size, depth)))
                groups.append((f"downsample_layers.{i}.", *blocks) if i > 0 and start == 0 else blocks)
            if i == 2:
                groups += [()] * (9 - -(-depth // size))
        return [*groups, ("norms.", "pooling.")]


class IsotropicConvNeXt(Backbone):
    """All blocks have stride 16 and one width, like a ViT (paper section 3.3).

    Its four levels are quarters of the depth.
    """

    def __init__(
        self,
        depth: int,
        dim: int,
        *,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        drop_path_rate: float = 0.0,
        layer_scale: float = 0.0,
        grad_checkpointing: bool = False,
        pool_norm_eps: float = EPS,
        in_chans: int = 3,
    ):
        super().__init__()
        check_use(use)
        self.grad_checkpointing = grad_checkpointing
        self.levels = (3,) if use == "pooled" else pick_levels(levels, 4)
        self.last_blocks = [depth * (i + 1) // 4 - 1 for i in self.levels]
        self.stem = nn.Conv2d(in_chans, dim, 16, 16)
        rates = drop_path_rates(drop_path_rate, depth)[: self.last_blocks[-1] + 1]
        self.blocks = nn.Sequential(*(Block(dim, rate, layer_scale) for rate in rates))
        norms = {str(i): LayerNorm2d(dim, eps=EPS) for i in self.levels} if use == "maps" else {}
        self.norms = nn.ModuleDict(norms)
        self.pooling = PoolNorm(dim, pool_norm_eps) if use == "pooled" else nn.Identity()
        self.spec = FeatureSpec((Level(dim, 16),) * len(self.levels), embed_dim=dim)
        self.apply(truncated_normal)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C, H / 16, W / 16) of the chosen levels."""
        x, maps = self.stem(image), []
        for i, block in enumerate(self.blocks):
            x = run_block(self, block, x)
            if i in self.last_blocks:
                maps.append(x)
        if self.norms:
            maps = [norm(x) for norm, x in zip(self.norms.values(), maps, strict=True)]
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem; each block; the norms."""
        return [("stem.",), *((f"blocks.{i}.",) for i in range(len(self.blocks))), ("norms.", "pooling.")]


# Paper table 9 (page 12) and section 3.3; micro is ours. Drop path rates belong to the training recipes.
VARIANTS: dict[str, Hyperparameters] = {
    # a layer scale of 1e-6 is for long trainings of deep networks
    "micro": {"depths": (2, 2, 4, 2), "dims": (24, 48, 96, 160), "layer_scale": 1.0},
    "tiny": {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)},
    "small": {"depths": (3, 3, 27, 3), "dims": (96, 192, 384, 768)},
    "base": {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024)},
    "large": {"depths": (3, 3, 27, 3), "dims": (192, 384, 768, 1536)},
    "xlarge": {"depths": (3, 3, 27, 3), "dims": (256, 512, 1024, 2048)},
    "isotropic_small": {"depth": 18, "dim": 384},
    "isotropic_base": {"depth": 18, "dim": 768},
    "isotropic_large": {"depth": 36, "dim": 1024, "layer_scale": 1e-6},
}

# The authors' UPerNet: the head's defaults, and an auxiliary head that reads the third map.
SYSTEMS: dict[str, dict[str, System]] = {
    "upernet": {variant: System(auxiliary_head={"level": 2}) for variant, row in VARIANTS.items() if "dims" in row}
}


@variant_builder(ConvNeXt, IsotropicConvNeXt)
def convnext(variant: str = "tiny", *, layer_scale: float | None = None, **options: Any) -> ConvNeXt | IsotropicConvNeXt:
    """Builds a ConvNeXt by the name of its variant.

    layer_scale: initial value of the layer scale, 0 for none; None for that of the variant (1e-6;
    none for isotropic S and B).
    """
    hyperparameters = dict(VARIANTS[variant])
    if layer_scale is not None:
        hyperparameters["layer_scale"] = layer_scale
    network = IsotropicConvNeXt if "depth" in hyperparameters else ConvNeXt
    return network(**hyperparameters, **options)
