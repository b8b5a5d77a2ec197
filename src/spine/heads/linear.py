"""Linear classifier."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from spine.interfaces import FeatureSpec, Head
from spine.task_spec import HeadInput


class Linear(Head):
    """Dropout and one linear layer."""

    reads: ClassVar[HeadInput] = "pooled"

    def __init__(self, spec: FeatureSpec, num_outputs: int, *, dropout: float = 0.0, bias: bool = True, batch_norm: bool = False):
        """`bias`: False in the authors' ShuffleNets.

        `batch_norm`: a batch norm without scale and shift first, for MAE's linear probes.
        """
        super().__init__()
        self.norm = nn.BatchNorm1d(spec.embed_dim, eps=1e-6, affine=False) if batch_norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(spec.embed_dim, num_outputs, bias=bias)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        if bias:
            nn.init.zeros_(self.linear.bias)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) -> (B, classes)."""
        return self.linear(self.drop(self.norm(embedding)))
