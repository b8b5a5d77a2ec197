"""Linear head on tokens.

It predicts visual tokens (BEiT, Bao et al., arXiv 2106.08254) or pixels (SimMIM, arXiv 2111.09886).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from spine.interfaces import FeatureSpec, Head, Tokens
from spine.task_spec import HeadInput


class TokenClassifier(Head):
    """One linear layer on each patch, visible or masked.

    It needs an encoder that returns all patches.
    """

    reads: ClassVar[HeadInput] = "tokens"
    masking: ClassVar[tuple[str, ...]] = ("replace",)

    def __init__(self, spec: FeatureSpec, num_outputs: int):
        super().__init__()
        self.lm_head = nn.Linear(spec.embed_dim, num_outputs)
        nn.init.trunc_normal_(self.lm_head.weight, std=0.02)
        nn.init.zeros_(self.lm_head.bias)

    def forward(self, tokens: Tokens, patch_mask: Tensor, masked_only: bool = False) -> Tensor:
        """Tokens of all patches, (B, N) True = masked -> (B, N, outputs); `masked_only`: (M, outputs) of the masked patches."""
        return self.lm_head(tokens.patches[patch_mask] if masked_only else tokens.patches)
