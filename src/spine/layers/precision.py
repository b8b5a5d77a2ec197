"""Precision of tensors inside and outside autocast."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Converts half-precision tensors to float32. Returns float32 and float64 tensors unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextlib.contextmanager
def without_autocast(x: Tensor) -> Iterator[None]:
    """Disables autocast on the device of `x`."""
    if not torch.amp.is_autocast_available(x.device.type):  # the meta device
        yield
        return
    with torch.autocast(x.device.type, enabled=False):
        yield
