"""Metrics of discrete VAEs."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class CodeCounts(Metric):
    """How often each code was used, (codes,) int64, over all processes."""

    counts: Tensor

    def __init__(self, num_codes: int):
        super().__init__()
        self.add_state("counts", torch.zeros(num_codes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Adds codes of any shape, int64."""
        self.counts += torch.bincount(codes.flatten(), minlength=len(self.counts))

    def compute(self) -> Tensor:
        """Returns the counts."""
        return self.counts


def perplexity(counts: Tensor) -> float:
    """Exponential of the entropy of the codes: the number of codes if all are used equally often. `counts`: (codes,)."""
    return float(torch.special.entr(counts.double() / counts.sum()).sum().exp())
