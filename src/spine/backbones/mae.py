"""MAE: Masked Autoencoders Are Scalable Vision Learners (He et al., CVPR 2022, arXiv 2111.06377).

A plain ViT that sees only the quarter of the patches that is not hidden; a light decoder (`heads/mae_decoder.py`) paints the rest, and
is thrown away after pre-training. What differs from a ViT: positions are fixed sines and cosines, and a classifier reads the mean of the
patches. Built for maps it emits the tokens after each quarter of the depth, without a norm. Nothing differs from the authors' code.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Backbone, Features, FeatureSpec, Level, Tokens, Use, check_use, pick_levels
from spine.layers.checkpointing import checkpointed
from spine.layers.conv import PoolNorm
from spine.layers.drop_path import drop_path_rates
from spine.layers.positions import resize_positions, sincos_positions
from spine.layers.transformer import ClassTokenNorm, PatchEmbed, TransformerBlock, patch_grid, xavier_linear

EPS = 1e-6  # of every norm (Hugging Face's is 1e-12)
Pooling = Literal[
    "avg", "token"
]  # the mean of the patches, THEN the norm (fine-tuning); the norm, then the class token (linear probes)


class MAE(Backbone):
    """A ViT whose class token only linear probes read; for pre-training ("drop") hidden patches never enter it."""

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        mlp_ratio: float = 4.0,
        image_size: tuple[int, int] = (224, 224),
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        drop_path_rate: float = 0.0,
        grad_checkpointing: bool = False,
        global_pool: Pooling = "avg",
        norm_eps: float = EPS,
        in_chans: int = 3,
    ):
        super().__init__()
        check_use(use, ("pooled", "maps", "drop"))
        poolings = {"avg": PoolNorm, "token": ClassTokenNorm}
        if global_pool not in poolings:
            raise InputError(f"global_pool is '{global_pool}'; choose avg (mean of the patches) or token (class token).")
        self.grad_checkpointing = grad_checkpointing
        self.patch_size = patch_size
        self.grid = patch_grid(image_size, patch_size)
        self.levels = (3,) if use != "maps" else pick_levels(levels, 4)
        self.last_blocks = [depth * (i + 1) // 4 - 1 for i in self.levels]
        self.patch_embed = PatchEmbed(in_chans, embed_dim, patch_size)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim).normal_(std=0.02))
        positions = torch.cat([torch.zeros(1, 1, embed_dim), sincos_positions(embed_dim, self.grid)], dim=1)
        # a parameter even where it is frozen, as in the authors' files; fine-tuning moves it
        self.pos_embed = nn.Parameter(positions, requires_grad=use != "drop")
        rates = drop_path_rates(drop_path_rate, depth)[: self.last_blocks[-1] + 1]
        self.blocks = nn.Sequential(*(TransformerBlock(embed_dim, num_heads, mlp_ratio, 0.0, rate, norm_eps) for rate in rates))
        # pre-training norms all tokens; fine-tuning takes the mean of the patches first, without the class token
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps) if use == "drop" else None
        self.pooling = poolings[global_pool](embed_dim, norm_eps) if use == "pooled" else nn.Identity()
        level = Level(embed_dim, patch_size)
        self.spec = FeatureSpec((level,) * len(self.levels), embed_dim, patch_size, self.grid, frozenset({"drop"}))
        self.apply(xavier_linear)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))  # as a linear layer

    def _embed(self, image: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Patch tokens (B, N, D) and class token (B, 1, D), both with their positions; the grid of this image size."""
        grid = patch_grid(image.shape[-2:], self.patch_size)
        positions = resize_positions(self.pos_embed, self.grid, grid)
        patches = self.patch_embed(image).flatten(2).transpose(1, 2) + positions[:, 1:]
        cls_token = (self.cls_token + positions[:, :1]).expand(len(image), -1, -1)
        return patches, cls_token, grid

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, D, H / P, W / P) after the chosen quarters of the depth, class token (B, D) of the last block."""
        patches, cls_token, grid = self._embed(image)
        x, maps = torch.cat([cls_token, patches], dim=1), []
        for i, block in enumerate(self.blocks):
            x = checkpointed(block, x) if self.grad_checkpointing and self.training else block(x)
            if i in self.last_blocks:
                maps.append(x[:, 1:].transpose(1, 2).unflatten(2, grid))
        return Features(tuple(maps), x[:, 0])

    def forward_masked(self, image: Tensor, patch_mask: Tensor, masking: str = "drop") -> Tokens:
        """Encodes only the visible patches: (B, 3, H, W), (B, N) True = hidden -> (B, N_visible, D), (B, D), behind the last norm."""
        if masking != "drop" or self.norm is None:
            raise InputError(f"This MAE was not built to {masking} patches; build it with use='drop'.")
        patches, cls_token, _ = self._embed(image)  # positions are added BEFORE patches are left out
        visible = patches[~patch_mask].view(len(image), -1, patches.shape[-1])
        x = torch.cat([cls_token, visible], dim=1)
        for block in self.blocks:
            x = checkpointed(block, x) if self.grad_checkpointing and self.training else block(x)
        x = self.norm(x)
        return Tokens(x[:, 1:], x[:, 0])

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The tokens, positions and patch embedding; each block; the last norm (the authors' `lr_decay.py`)."""
        blocks = ((f"blocks.{i}.",) for i in range(len(self.blocks)))
        return [("cls_token", "pos_embed", "patch_embed."), *blocks, ("norm.", "pooling.")]


# Paper section 4 (ViT-B, ViT-L, ViT-H); micro is ours.
VARIANTS: dict[str, dict[str, Any]] = {
    "micro": {"embed_dim": 128, "depth": 4, "num_heads": 4, "patch_size": 16},
    "base_patch16": {"embed_dim": 768, "depth": 12, "num_heads": 12, "patch_size": 16},
    "large_patch16": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "patch_size": 16},
    "huge_patch14": {"embed_dim": 1280, "depth": 32, "num_heads": 16, "patch_size": 14},
}


def mae(
    variant: str = "base_patch16",
    *,
    image_size: tuple[int, int] = (224, 224),
    use: Use = "pooled",
    levels: tuple[int, ...] | None = None,
    drop_path_rate: float = 0.0,
    grad_checkpointing: bool = False,
    global_pool: Pooling = "avg",
    norm_eps: float = EPS,
    in_chans: int = 3,
) -> MAE:
    """An MAE by the name of its variant, its table of positions made for `image_size` (height, width)."""
    return MAE(
        **VARIANTS[variant],
        image_size=image_size,
        use=use,
        levels=levels,
        drop_path_rate=drop_path_rate,
        grad_checkpointing=grad_checkpointing,
        global_pool=global_pool,
        norm_eps=norm_eps,
        in_chans=in_chans,
    )
