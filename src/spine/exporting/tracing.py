"""Captures the computation of a network as a graph, with sizes that may change where the network allows it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from spine.errors import InputError
from spine.exporting.network import ExportedNetwork

log = logging.getLogger(__name__)

SMALLEST = 64  # pixels of the shorter side of an image of any size
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Traced:
    """A graph, and the images that it takes.

    multiple: the sides of images are multiples of it, at least SMALLEST; None if images have one size. reason: why they have one size.
    """

    program: ExportedProgram
    multiple: int | None
    reason: str = ""


def traced_graphs(
    network: ExportedNetwork, inputs: Sequence[Tensor], batch_size: int | None, multiples: Sequence[int], reason: str = ""
) -> Iterator[Traced]:
    """Yields graphs of a network: for images of any size where torch.export proves that the graph holds for them, then for one size.

    inputs: an example with a batch of 2 or more, or of `batch_size` if it is fixed. multiples: of which image sides may be, in the
    order in which they are tried; if there are none, `reason` says why. The last graph is for images of the size of the example.
    Raises InputError if the network cannot be captured at all.
    """
    for multiple in multiples:
        try:
            yield Traced(_export(network, inputs, batch_size, multiple), multiple)
            reason = "the file does not hold for other sizes"  # the caller asked for another graph
        except Exception as error:  # torch.export raises many types
            reason = _first_line(error)
            log.debug("Images that are multiples of %d pixels: %s", multiple, error)
    try:
        yield Traced(_export(network, inputs, batch_size, None), None, reason)
    except Exception as error:
        raise InputError(f"torch.export cannot capture this network: {_first_line(error)}") from error


def allowed_sizes(network: nn.Module, size: Size) -> tuple[tuple[int, ...], str]:
    """Returns the multiples of which the sides of images may be, for `traced_graphs`; and why there are none, if so.

    Token networks need multiples of their patches, all others take any size; multiples of their coarsest stride are the second
    choice. `size`: (height, width) of the images that the network was made for.
    """
    backbone = getattr(network, "backbone", None)
    if backbone is None:  # a discrete VAE
        return (8,), ""
    if getattr(network, "grid", None) is not None:
        return (), "it has an output for each patch"
    if getattr(network.head, "image_size", None) is not None:
        return (), "its head has an output for each column and row"
    if min(size) < SMALLEST:
        return (), f"images are smaller than {SMALLEST} pixels"
    if (patch := backbone.spec.patch_size) is not None:
        return (patch,), ""
    return (1, max(32, backbone.spec.levels[-1].stride)), ""


def _export(network: ExportedNetwork, inputs: Sequence[Tensor], batch_size: int | None, multiple: int | None) -> ExportedProgram:
    batch = {} if batch_size is not None else {0: Dim("batch")}
    down, across = (1, 2) if network.normalization is not None else (2, 3)
    sides: dict[int, Dim] = {}
    if multiple == 1:
        sides = {down: Dim("height", min=SMALLEST), across: Dim("width", min=SMALLEST)}
    elif multiple is not None:
        least = -(-SMALLEST // multiple)
        sides = {down: multiple * Dim("rows", min=least), across: multiple * Dim("columns", min=least)}
    shapes = [{**batch, **sides}, *(dict(batch) for _ in inputs[1:])]
    with torch.no_grad(), quiet():
        return torch.export.export(network, tuple(inputs), dynamic_shapes=tuple(shapes), strict=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Hides what exporters tell their developers, in warnings and in logs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
