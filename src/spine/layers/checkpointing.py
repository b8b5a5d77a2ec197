"""Gradient checkpointing (Chen et al., arXiv 1604.06174)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from spine.interfaces import Backbone


def run_block(backbone: Backbone, block: nn.Module, *inputs: Any) -> Any:
    """Returns block(*inputs), with gradient checkpointing if `backbone.grad_checkpointing` is set
    and `backbone` is training.

    With gradient checkpointing only the inputs are stored. The activations are recomputed in the
    backward pass, with the same random numbers.
    """
    if backbone.grad_checkpointing and backbone.training:
        contexts = lambda: (contextlib.nullcontext(), _frozen_statistics(block))  # noqa: E731
        return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)
    return block(*inputs)


@contextlib.contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Freezes running statistics during recomputation: the first forward pass has updated them."""
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
