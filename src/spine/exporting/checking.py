"""Compares an exported file with PyTorch: outputs, and the time of one call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spine.errors import InputError

Inputs = tuple[Tensor, ...]  # of a network or a file: image, and patch_mask of masked networks
Call = Callable[[Inputs], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Difference:
    """How far the raw output of a file is from that of PyTorch.

    largest: the largest absolute difference. relative: the same as a fraction of the largest absolute output of PyTorch.
    images: how many were compared.
    """

    largest: float
    relative: float
    images: int

    def __str__(self) -> str:
        return f"{self.largest:.1e}, {self.relative:.1e} of the largest output, {self.images} images"


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call with one image, median of interleaved calls: of the file, and of PyTorch."""

    file: float
    pytorch: float

    def __str__(self) -> str:
        return f"{self.file:.1f} ms, PyTorch {self.pytorch:.1f} ms"


def compare(pytorch: Call, file: Call, batches: Sequence[tuple[Inputs, Inputs]]) -> Difference:
    """Returns the difference of the raw outputs, the first ones, for batches of inputs of PyTorch and inputs of the file.

    Raises InputError if outputs have different shapes, or are not finite where those of PyTorch are.
    """
    largest, scale, images = 0.0, 0.0, 0
    for inputs, of_file in batches:
        expected, found = pytorch(inputs)[0].double(), file(of_file)[0].double()
        if expected.shape != found.shape:
            raise InputError(f"The output of the file has shape {tuple(found.shape)}, and PyTorch's has {tuple(expected.shape)}.")
        if not found.isfinite().all() and expected.isfinite().all():
            raise InputError("The output of the file is not finite, and PyTorch's is.")
        largest = max(largest, float((expected - found).abs().max()))
        scale = max(scale, float(expected.abs().max()))
        images += len(expected)
    return Difference(largest, largest / scale if scale else largest, images)


def measure_latency(pytorch: Call, file: Call, inputs: tuple[Inputs, Inputs], rounds: int) -> Latency:
    """Returns the median times of `rounds` calls each, which take turns, after two that do not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 2):
        for call, own, times in zip((pytorch, file), inputs, seconds, strict=True):
            start = time.perf_counter()
            call(own)
            if number >= 2:
                times.append(time.perf_counter() - start)
    return Latency(1000 * statistics.median(seconds[1]), 1000 * statistics.median(seconds[0]))


def megabytes(files: Sequence[Path]) -> float:
    """Returns the size of files together, in MB of 10^6 bytes."""
    return sum(file.stat().st_size for file in files) / 1e6


def run_pytorch(network: torch.nn.Module) -> Call:
    """Returns a call of a network of PyTorch without gradients."""

    def call(inputs: Inputs) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            found = network(*inputs)
        return (found,) if isinstance(found, Tensor) else tuple(found)

    return call
