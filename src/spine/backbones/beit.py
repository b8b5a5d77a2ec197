"""BEiT: BERT Pre-Training of Image Transformers (Bao et al., ICLR 2022, arXiv 2106.08254).

A ViT that is pre-trained like BERT: a mask token replaces masked patches, and the network predicts
the visual token of each of them. Instead of a position embedding, attention has a relative position
bias. In pre-training all blocks share one relative position bias table; afterwards each block has a
separate one. Built for "maps", the network returns the tokens after a third, a half, two thirds and
all of the depth (blocks 4, 6, 8, 12 of base), without a norm.

One difference from the authors' code: tables are resized to other image sizes in the forward pass,
not only when a file is loaded.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Backbone, Features, FeatureSpec, Level, Tokens, Use, check_use, pick_levels
from spine.layers.checkpointing import run_block
from spine.layers.conv import PoolNorm
from spine.layers.drop_path import DropPath, drop_path_rates
from spine.layers.initialization import truncated_normal
from spine.layers.positions import Grid, resize_relative_positions
from spine.layers.transformer import MLP, PatchEmbed, attention, patch_grid
from spine.variants import Hyperparameters, System, variant_builder, with_patch_size

EPS = 1e-6  # of all norms (1e-12 in Hugging Face's files)


def relative_index(grid: Grid) -> Tensor:
    """Returns the row of the bias table for each pair of tokens (N + 1, N + 1), class token first."""
    height, width = grid
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    down, right = (axis[:, None] - axis[None] for axis in (y, x))  # position of the query minus that of the key
    last = (2 * height - 1) * (2 * width - 1)
    index = F.pad((down + height - 1) * (2 * width - 1) + right + width - 1, (1, 0, 1, 0))
    index[0, :], index[:, 0] = last, last + 1  # class token to patches, patches to class token
    index[0, 0] = last + 2
    return index


class RelativePositions(nn.Module):
    """Relative position bias per head (section 2.2, after T5), with three more rows for the class token."""

    def __init__(self, num_heads: int, grid: Grid):
        super().__init__()
        self.grid = grid
        rows = (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))  # zero, not a truncated normal

    def forward(self, grid: Grid, index: Tensor) -> Tensor:
        """The grid of the image and its `relative_index` (N + 1, N + 1) -> (1, heads, N + 1, N + 1)."""
        table = resize_relative_positions(self.relative_position_bias_table, self.grid, grid)
        return table.T.index_select(1, index.flatten()).view(1, -1, *index.shape)  # heads first, without a copy


class Attention(nn.Module):
    """Self-attention with relative position bias. Queries and values have a bias, keys have none.

    `grid`: that of the block's own relative position bias table; None if all blocks share one.
    """

    def __init__(self, dim: int, num_heads: int, grid: Grid | None):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.rel_pos_bias = RelativePositions(num_heads, grid) if grid else None
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, shared_bias: Tensor | None, grid: Grid, index: Tensor) -> Tensor:
        """(B, N, D), the shared relative position bias (1, heads, N, N) or None -> (B, N, D)."""
        B, N, D = x.shape
        qkv_bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, qkv_bias).view(B, N, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D / heads)
        bias = shared_bias if self.rel_pos_bias is None else self.rel_pos_bias(grid, index)
        assert bias is not None
        x = attention(q, k, v, bias)
        return self.proj(x.transpose(1, 2).reshape(B, N, D))


class Block(nn.Module):
    """Attention and MLP, each with layer norm, layer scale and a residual connection."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, layer_scale: float, drop_path: float, grid: Grid | None, eps: float
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, grid)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.gamma_1 = nn.Parameter(torch.full((dim,), layer_scale))
        self.gamma_2 = nn.Parameter(torch.full((dim,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, shared_bias: Tensor | None, grid: Grid, index: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.drop_path(self.gamma_1 * self.attn(self.norm1(x), shared_bias, grid, index))
        return x + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x)))


class BEiT(Backbone):
    """ViT with relative position bias, shared by all blocks if it is built to "replace" masked patches."""

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        layer_scale: float,
        mlp_ratio: float = 4.0,
        *,
        image_size: Grid = (224, 224),
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        drop_path_rate: float = 0.0,
        grad_checkpointing: bool = False,
        norm_eps: float = EPS,
        in_chans: int = 3,
    ):
        super().__init__()
        check_use(use, ("pooled", "maps", "replace"))
        masked = use == "replace"
        self.grad_checkpointing = grad_checkpointing
        self.patch_size = patch_size
        self.grid = patch_grid(image_size, patch_size)
        self.levels = pick_levels(levels, 4) if use == "maps" else (3,)
        self.last_blocks = [depth * (2, 3, 4, 6)[i] // 6 - 1 for i in self.levels]
        self.patch_embed = PatchEmbed(in_chans, embed_dim, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if masked else None
        self.rel_pos_bias = RelativePositions(num_heads, self.grid) if masked else None
        own_grid = None if masked else self.grid
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, layer_scale, rate, own_grid, norm_eps)
            for rate in drop_path_rates(drop_path_rate, depth)[: self.last_blocks[-1] + 1]
        )
        # pre-training normalizes all tokens; fine-tuning normalizes the mean of the patch tokens, without the class token
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps) if masked else None
        self.pooling = PoolNorm(embed_dim, norm_eps) if use == "pooled" else nn.Identity()
        level = Level(embed_dim, patch_size)
        self.spec = FeatureSpec((level,) * len(self.levels), embed_dim, patch_size, self.grid, frozenset({"replace"}))
        self._indices: dict[tuple[Grid, torch.device], Tensor] = {}
        self._initialize()

    def _initialize(self) -> None:
        """Truncated normal of std 0.02 (the authors).

        The last layers of both branches of block l are divided by sqrt(2 l).
        """
        for module in self.modules():
            truncated_normal(module)
        for token in (self.cls_token, self.mask_token):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)
        blocks = [module for module in self.modules() if isinstance(module, Block)]
        for number, block in enumerate(blocks, start=1):
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.data.div_(math.sqrt(2 * number))

    @torch.inference_mode(False)
    def _index(self, grid: Grid, device: torch.device) -> Tensor:
        """`relative_index`, cached for each grid and device."""
        if torch.compiler.is_exporting():  # its tensors have no values, and must not be cached
            return relative_index(grid).to(device)
        if (grid, device) not in self._indices:
            self._indices[grid, device] = relative_index(grid).to(device)
        return self._indices[grid, device]

    def _encode(self, image: Tensor, patch_mask: Tensor | None) -> tuple[list[Tensor], Grid]:
        """Returns the tokens (B, 1 + N, D) after each chosen block, and the grid of the image."""
        grid = patch_grid(image.shape[-2:], self.patch_size)
        index = self._index(grid, image.device)
        x = self.patch_embed(image).flatten(2).transpose(1, 2)
        if patch_mask is not None and self.mask_token is not None:
            x = torch.where(patch_mask[..., None], self.mask_token.to(x.dtype), x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        shared_bias = self.rel_pos_bias(grid, index) if self.rel_pos_bias is not None else None
        chosen = []
        for i, block in enumerate(self.blocks):
            x = run_block(self, block, x, shared_bias, grid, index)
            if i in self.last_blocks:
                chosen.append(x)
        return chosen, grid

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, D, H / P, W / P) of the chosen levels, class token (B, D)."""
        chosen, grid = self._encode(image, None)
        return Features(tuple(x[:, 1:].transpose(1, 2).unflatten(2, grid) for x in chosen), chosen[-1][:, 0])

    def forward_masked(self, image: Tensor, patch_mask: Tensor, masking: str = "replace") -> Tokens:
        """Encodes all patches: (B, 3, H, W), (B, N) True = masked -> (B, N, D), class token (B, D),
        after the last norm.

        Raises InputError if the network was not built for "replace".
        """
        if masking != "replace" or self.norm is None:
            raise InputError(f"This BEiT was not built to {masking} patches; build it with use='replace'.")
        x = self.norm(self._encode(image, patch_mask)[0][-1])
        return Tokens(x[:, 1:], x[:, 0])

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Tokens and patch embedding; each block; all others, with the shared table (`optim_factory.py`)."""
        blocks = ((f"blocks.{i}.",) for i in range(len(self.blocks)))
        return [("cls_token", "mask_token", "patch_embed."), *blocks, ("rel_pos_bias.", "norm.", "pooling.")]


# Paper section 3, with the authors' layer scale for each size; micro is ours.
VARIANTS: dict[str, Hyperparameters] = {
    "micro": {"embed_dim": 96, "depth": 6, "num_heads": 3, "patch_size": 16, "layer_scale": 1.0},
    "base_patch16": {"embed_dim": 768, "depth": 12, "num_heads": 12, "patch_size": 16, "layer_scale": 0.1},
    "large_patch16": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "patch_size": 16, "layer_scale": 1e-5},
}

# The authors' UPerNet has the width of the encoder, and an auxiliary head that reads the third map.
SYSTEMS: dict[str, dict[str, System]] = {
    "upernet": {
        variant: System(head={"channels": row["embed_dim"]}, auxiliary_head={"level": 2}) for variant, row in VARIANTS.items()
    }
}


@variant_builder(BEiT)
def beit(variant: str = "base_patch16", *, patch_size: int | None = None, **options: Any) -> BEiT:
    """Builds a BEiT by the name of its variant.

    patch_size: in pixels; None for that of the variant. image_size: (height, width) for which the
    relative position bias tables are created.
    """
    return BEiT(**with_patch_size(VARIANTS[variant], patch_size), **options)
