"""Fully sharded data parallelism (FSDP2)."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor


def local_part(tensor: Tensor) -> Tensor:
    """Returns the part of a sharded tensor that this process holds, and other tensors unchanged. Shares memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
