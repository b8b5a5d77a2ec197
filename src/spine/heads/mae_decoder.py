"""MAE's decoder: Masked Autoencoders Are Scalable Vision Learners (He et al., CVPR 2022, arXiv 2111.06377)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import FeatureSpec, Head, Tokens
from spine.layers.initialization import xavier_linear
from spine.layers.positions import sincos_positions
from spine.layers.transformer import TransformerBlock
from spine.task_spec import HeadInput

EPS = 1e-6  # of all norms (1e-12 in Hugging Face's files)


class MAEDecoder(Head):
    """Small transformer that predicts the pixels of all patches.

    A mask token, equal for all, is the input at masked patches.
    """

    reads: ClassVar[HeadInput] = "tokens"
    masking: ClassVar[tuple[str, ...]] = ("drop", "replace")

    def __init__(
        self,
        spec: FeatureSpec,
        num_outputs: int,
        *,
        decoder_dim: int | None = None,
        decoder_depth: int | None = None,
        decoder_heads: int | None = None,
        norm_eps: float = EPS,
    ):
        """`num_outputs` is P * P * 3. `decoder_*`: None for the paper's width 512, depth 8 and 16
        heads, or for a smaller decoder of width 128, depth 2 and 4 heads if the width of the
        encoder is below 384.
        """
        super().__init__()
        if spec.grid is None:
            raise InputError("MAE's decoder needs a grid of patches, and this backbone has none. Build it with an image_size.")
        dim, depth, heads = (512, 8, 16) if spec.embed_dim >= 384 else (128, 2, 4)
        dim, depth, heads = decoder_dim or dim, decoder_depth or depth, decoder_heads or heads
        self.decoder_embed = nn.Linear(spec.embed_dim, dim)
        # inserted at the masked patches if the encoder drops them; other encoders return all patches
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02)) if "drop" in spec.masking else None
        positions = torch.cat([torch.zeros(1, 1, dim), sincos_positions(dim, spec.grid)], dim=1)  # zero for the class token
        self.decoder_pos_embed = nn.Parameter(positions, requires_grad=False)  # frozen, but a parameter as in the authors' files
        self.decoder_blocks = nn.Sequential(*(TransformerBlock(dim, heads, eps=norm_eps) for _ in range(depth)))
        self.decoder_norm = nn.LayerNorm(dim, eps=norm_eps)
        self.decoder_pred = nn.Linear(dim, num_outputs)
        self.apply(xavier_linear)

    def forward(self, tokens: Tokens, patch_mask: Tensor, masked_only: bool = False) -> Tensor:
        """Tokens, (B, N) True = masked -> pixels (B, N, P * P * 3) of all patches: row, column, channel.

        `masked_only`: (M, P * P * 3) of the masked patches.
        """
        x = self.decoder_embed(tokens.patches)
        if self.mask_token is not None:
            full = self.mask_token.to(x.dtype).repeat(*patch_mask.shape, 1)
            x = full.masked_scatter(~patch_mask[..., None], x)  # visible patches are in raster order
        x = x + self.decoder_pos_embed[:, 1:]
        if tokens.cls_token is not None:
            cls_token = self.decoder_embed(tokens.cls_token)[:, None] + self.decoder_pos_embed[:, :1]
            x = torch.cat([cls_token, x], dim=1)
        x = self.decoder_norm(self.decoder_blocks(x))
        if masked_only:
            return self.decoder_pred(x[:, -patch_mask.shape[1] :][patch_mask])
        return self.decoder_pred(x)[:, -patch_mask.shape[1] :]
