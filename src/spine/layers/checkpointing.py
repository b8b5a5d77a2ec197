"""Gradient checkpointing: memory for time (Chen et al., arXiv 1604.06174)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextlib.contextmanager
def _statistics_at_rest(block: nn.Module) -> Iterator[None]:
    """Batch norms normalise by their batch, and their running statistics stay: a second forward must not count twice."""
    norms = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)


def checkpointed(block: nn.Module, *inputs: Any) -> Any:
    """block(*inputs), of which only the inputs are kept; the rest is computed again in the backward pass, with the same random numbers."""
    contexts = lambda: (contextlib.nullcontext(), _statistics_at_rest(block))  # noqa: E731
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)
