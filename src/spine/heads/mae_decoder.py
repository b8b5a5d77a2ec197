"""MAE's decoder: Masked Autoencoders Are Scalable Vision Learners (He et al., CVPR 2022, arXiv 2111.06377)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import FeatureSpec, Head, Tokens
from spine.layers.positions import sincos_positions
from spine.layers.transformer import TransformerBlock, xavier_linear
from spine.task_spec import HeadInput

EPS = 1e-6  # of every norm (Hugging Face's is 1e-12)


class MAEDecoder(Head):
    """A light transformer that paints every patch from the visible ones; a shared token stands for each hidden one."""

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
        """`num_outputs` is P * P * 3. None takes the paper's 512 wide, 8 deep, 16 heads; a light 128, 2, 4 below a width of 384."""
        super().__init__()
        if spec.grid is None:
            raise InputError("MAE's decoder places tokens on a grid; this backbone states none. Build it with an image_size.")
        dim, depth, heads = (512, 8, 16) if spec.embed_dim >= 384 else (128, 2, 4)
        dim, depth, heads = decoder_dim or dim, decoder_depth or depth, decoder_heads or heads
        self.decoder_embed = nn.Linear(spec.embed_dim, dim)
        # encoders that drop hidden patches leave holes, which this token fills; the others hand over every patch
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim).normal_(std=0.02)) if "drop" in spec.masking else None
        positions = torch.cat([torch.zeros(1, 1, dim), sincos_positions(dim, spec.grid)], dim=1)  # the class token's is zero
        self.decoder_pos_embed = nn.Parameter(positions, requires_grad=False)  # frozen, yet a parameter, as in the authors' files
        self.decoder_blocks = nn.Sequential(*(TransformerBlock(dim, heads, eps=norm_eps) for _ in range(depth)))
        self.decoder_norm = nn.LayerNorm(dim, eps=norm_eps)
        self.decoder_pred = nn.Linear(dim, num_outputs)
        self.apply(xavier_linear)

    def forward(self, tokens: Tokens, patch_mask: Tensor) -> Tensor:
        """Tokens, (B, N) True = hidden -> pixels (B, N, P * P * 3) in the order row, column, channel; the hidden and the seen."""
        x = self.decoder_embed(tokens.patches)
        if self.mask_token is not None:
            full = self.mask_token.to(x.dtype).repeat(*patch_mask.shape, 1)
            x = full.masked_scatter(~patch_mask[..., None], x)  # raster order restores the places
        x = x + self.decoder_pos_embed[:, 1:]
        if tokens.cls_token is not None:
            cls_token = self.decoder_embed(tokens.cls_token)[:, None] + self.decoder_pos_embed[:, :1]
            x = torch.cat([cls_token, x], dim=1)
        x = self.decoder_pred(self.decoder_norm(self.decoder_blocks(x)))
        return x[:, -patch_mask.shape[1] :]
