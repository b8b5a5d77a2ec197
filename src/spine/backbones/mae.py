"""MAE: Masked Autoencoders Are Scalable Vision Learners (He et al., CVPR 2022, arXiv 2111.06377).

In pre-training a plain ViT encodes only the visible quarter of the patches. A small decoder
(`heads/mae_decoder.py`) reconstructs the masked ones, and is discarded afterwards. Compared with a
ViT, the position embedding starts as fixed sines and cosines, and classifiers read the mean of the
patch tokens. Built for "maps", the network returns the tokens after each quarter of the depth,
without a norm. There is no difference from the authors' code.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from spine.errors import InputError
from spine.interfaces import Use
from spine.layers.conv import PoolNorm
from spine.layers.positions import sincos_positions
from spine.layers.transformer import ClassTokenNorm, PatchEmbed
from spine.layers.vit_encoder import ViTEncoder
from spine.variants import Hyperparameters, variant_builder, with_patch_size

EPS = 1e-6  # of all norms (1e-12 in Hugging Face's files)
# avg: mean of the patch tokens, then norm (fine-tuning); token: norm, then class token (linear probes)
Pooling = Literal["avg", "token"]
POOLINGS = {"avg": PoolNorm, "token": ClassTokenNorm}


class MAE(ViTEncoder):
    """ViT with a sine-cosine position embedding.

    Built for "drop", it encodes visible patches only, and the positions are frozen.
    """

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        mlp_ratio: float = 4.0,
        *,
        image_size: tuple[int, int] = (224, 224),
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        drop_path_rate: float = 0.0,
        grad_checkpointing: bool = False,
        global_pool: Pooling = "avg",
        norm_eps: float = EPS,
        in_chans: int = 3,
    ):
        if global_pool not in POOLINGS:
            raise InputError(f"global_pool is '{global_pool}'; choose avg (mean of the patches) or token (class token).")
        super().__init__(
            PatchEmbed(in_chans, embed_dim, patch_size),
            depth,
            num_heads,
            mlp_ratio,
            image_size=image_size,
            use=use,
            levels=levels,
            drop_path_rate=drop_path_rate,
            norm_eps=norm_eps,
            cls_token_std=0.02,
        )
        self.grad_checkpointing = grad_checkpointing
        positions = torch.cat([torch.zeros(1, 1, embed_dim), sincos_positions(embed_dim, self.grid)], dim=1)
        # a parameter also if it is frozen, as in the authors' files; fine-tuning trains it
        self.pos_embed = nn.Parameter(positions, requires_grad=use != "drop")
        self.pooling = POOLINGS[global_pool](embed_dim, norm_eps) if use == "pooled" else nn.Identity()


# Paper section 4 (ViT-B, ViT-L, ViT-H); micro is ours.
VARIANTS: dict[str, Hyperparameters] = {
    "micro": {"embed_dim": 128, "depth": 4, "num_heads": 4, "patch_size": 16},
    "base_patch16": {"embed_dim": 768, "depth": 12, "num_heads": 12, "patch_size": 16},
    "large_patch16": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "patch_size": 16},
    "huge_patch14": {"embed_dim": 1280, "depth": 32, "num_heads": 16, "patch_size": 14},
}


@variant_builder(MAE)
def mae(variant: str = "base_patch16", *, patch_size: int | None = None, **options: Any) -> MAE:
    """Builds an MAE encoder by the name of its variant.

    patch_size: in pixels; None for that of the variant. image_size: (height, width) for which the
    position embedding is created. global_pool: "avg" or "token" (see Pooling).
    """
    return MAE(**with_patch_size(VARIANTS[variant], patch_size), **options)
