"""Number formats inside autocast regions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision tensors as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextlib.contextmanager
def without_autocast(x: Tensor) -> Iterator[None]:
    """A region in which operations keep their inputs' number format, on the device of `x`."""
    if not torch.amp.is_autocast_available(x.device.type):  # the meta device
        yield
        return
    with torch.autocast(x.device.type, enabled=False):
        yield
