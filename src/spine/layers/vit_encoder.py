"""The encoder that ViT and MAE share."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Backbone, Features, FeatureSpec, Level, Tokens, Use, check_use, pick_levels
from spine.layers.checkpointing import run_block
from spine.layers.drop_path import drop_path_rates
from spine.layers.initialization import xavier_linear
from spine.layers.positions import resize_positions
from spine.layers.transformer import TransformerBlock, patch_grid


class Embedding(Protocol):
    """A module that computes one token per patch of an image."""

    patch_size: int  # in image pixels
    proj: nn.Conv2d

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, H / P, W / P)."""


class ViTEncoder(Backbone):
    """Patch embedding, class token, absolute position embedding and pre-norm transformer blocks.

    Its four levels are the tokens after each quarter of the depth, as maps without a norm, all with
    the stride of the patches. Built for "drop" it encodes only the visible patches, and a layer
    norm follows the last block. Subclasses define the initial position embedding and `pooling`.
    """

    def __init__(
        self,
        patch_embed: Embedding,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        *,
        image_size: tuple[int, int],
        use: Use,
        levels: tuple[int, ...] | None,
        drop_path_rate: float,
        norm_eps: float,
        dropout: float = 0.0,
        gelu: str = "none",
        cls_token_std: float = 0.0,
        can_drop: bool = True,
    ):
        """`can_drop`: whether masked patches can be dropped.

        `cls_token_std`: standard deviation of the initial class token.
        """
        super().__init__()
        check_use(use, ("pooled", "maps", "drop") if can_drop else ("pooled", "maps"))
        embed_dim = patch_embed.proj.out_channels
        self.patch_size = patch_embed.patch_size
        self.grid = patch_grid(image_size, self.patch_size)
        self.levels = pick_levels(levels, 4) if use == "maps" else (3,)
        self.last_blocks = [depth * (i + 1) // 4 - 1 for i in self.levels]
        self.patch_embed = patch_embed
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        if cls_token_std > 0:
            nn.init.normal_(self.cls_token, std=cls_token_std)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], embed_dim))
        self.pos_drop = nn.Dropout(dropout)
        rates = drop_path_rates(drop_path_rate, depth)[: self.last_blocks[-1] + 1]
        self.blocks = nn.Sequential(
            *(TransformerBlock(embed_dim, num_heads, mlp_ratio, dropout, rate, norm_eps, gelu) for rate in rates)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps) if use == "drop" else None
        level, masking = Level(embed_dim, self.patch_size), frozenset({"drop"} if can_drop else ())
        self.spec = FeatureSpec((level,) * len(self.levels), embed_dim, self.patch_size, self.grid, masking)
        self.apply(xavier_linear)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))  # like a linear layer

    def embed(self, image: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Returns patch tokens (B, N, D), class token (B, 1, D), and the grid of the image.

        The position embedding is added to the tokens.
        """
        grid = patch_grid(image.shape[-2:], self.patch_size)
        positions = resize_positions(self.pos_embed, self.grid, grid)
        patches = self.patch_embed(image).flatten(2).transpose(1, 2) + positions[:, 1:]
        cls_token = (self.cls_token + positions[:, :1]).expand(image.shape[0], -1, -1)
        return patches, cls_token, grid

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, D, H / P, W / P) of the chosen levels, class token (B, D)."""
        patches, cls_token, grid = self.embed(image)
        x, maps = self.pos_drop(torch.cat([cls_token, patches], dim=1)), []
        for i, block in enumerate(self.blocks):
            x = run_block(self, block, x)
            if i in self.last_blocks:
                maps.append(x[:, 1:].transpose(1, 2).unflatten(2, grid))
        return Features(tuple(maps), x[:, 0])

    def forward_masked(self, image: Tensor, patch_mask: Tensor, masking: str = "drop") -> Tokens:
        """Encodes the visible patches: (B, 3, H, W), (B, N) True = masked -> (B, N_visible, D), (B,
        D), after the last norm.

        Every row of `patch_mask` has the same number of masked patches. Raises InputError if the
        network was not built for "drop".
        """
        if masking != "drop" or self.norm is None:
            raise InputError(f"This {type(self).__name__} was not built to {masking} patches; build it with use='drop'.")
        patches, cls_token, _ = self.embed(image)  # positions are added before patches are dropped
        visible = patches[~patch_mask].view(image.shape[0], -1, patches.shape[-1])
        x = self.pos_drop(torch.cat([cls_token, visible], dim=1))
        for block in self.blocks:
            x = run_block(self, block, x)
        x = self.norm(x)
        return Tokens(x[:, 1:], x[:, 0])

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Class token, position and patch embedding; each block; the last norm (`lr_decay.py` of MAE)."""
        blocks = ((f"blocks.{i}.",) for i in range(len(self.blocks)))
        return [("cls_token", "pos_embed", "patch_embed."), *blocks, ("norm.", "pooling.")]
