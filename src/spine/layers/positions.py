"""Absolute and relative position embeddings, and their interpolation to other image sizes."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from spine.errors import InputError
from spine.layers.precision import at_least_float32

Grid = tuple[int, int]  # patches down and across


def sincos_positions(dim: int, grid: Grid) -> Tensor:
    """Returns a fixed 2D sine-cosine position embedding (1, h * w, dim), columns before rows, as in
    MAE (`util/pos_embed.py`).

    Raises InputError if `dim` is not a multiple of 4.
    """
    if dim % 4:
        raise InputError(f"Sine-cosine positions need a width that is a multiple of 4; it is {dim}.")
    frequencies = 1.0 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (columns, rows)]  # each (h * w, dim / 4)
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)[None].float()


def resize_positions(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Resizes a position embedding (1, extra + h * w, D) to another grid by 2D bicubic interpolation.

    The first `extra` rows, those of class tokens, are not changed.
    """
    if all(isinstance(side, int) for side in new) and tuple(old) == tuple(new):  # in an exported graph sides are symbols
        return table
    extra = table.shape[1] - old[0] * old[1]
    kept, grid = table[:, :extra], table[:, extra:]
    grid = at_least_float32(grid.reshape(1, *old, -1).permute(0, 3, 1, 2))
    grid = F.interpolate(grid, new, mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([kept, grid.flatten(2).transpose(1, 2).to(kept.dtype)], dim=1)


def resize_relative_positions(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Resizes a 2D relative position bias table ((2h - 1)(2w - 1) + extra, heads) to another grid.

    The last `extra` rows, those of class tokens, are not changed. Source positions are spaced in a
    geometric progression as in BEiT's code, which interpolates by a cubic spline; here the
    interpolation is bicubic convolution. Raises InputError in a graph with symbols for the sides: the
    progression is computed for one grid.
    """
    if torch.compiler.is_exporting() and not all(isinstance(side, int) for side in new):
        raise InputError("Tables of relative positions are resized for one image size, and not in the graph of a network.")
    if tuple(old) == tuple(new):
        return table
    rows, columns = (2 * side - 1 for side in old)
    grid, kept = table[: rows * columns], table[rows * columns :]
    maps = at_least_float32(grid.T.reshape(1, -1, rows, columns))
    sample = _sampling_points if torch.compiler.is_exporting() else _cached_sampling_points
    points = sample((old[0], old[1]), (new[0], new[1])).to(maps)
    maps = F.grid_sample(maps, points, mode="bicubic", padding_mode="border", align_corners=True)
    return torch.cat([maps[0].flatten(1).T.to(kept.dtype), kept])


@torch.inference_mode(False)  # a cached inference tensor would raise an error in later training
def _sampling_points(old: Grid, new: Grid) -> Tensor:
    """Returns the points (1, 2h' - 1, 2w' - 1, 2) at which a table is sampled, x and y in [-1, 1]."""
    axes = []
    for before, after in zip(old, new, strict=True):
        positive = [x / max(before - 1, 1) for x in source_coordinates(before, after)]
        axes.append(torch.tensor([*(-x for x in reversed(positive)), 0.0, *positive], dtype=torch.float64, device="cpu"))
    y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y], dim=-1)[None]


_cached_sampling_points = functools.lru_cache(maxsize=32)(_sampling_points)


def source_coordinates(old: int, new: int) -> list[float]:
    """Source coordinates in 0 .. old - 1 of the relative positions 1 .. new - 1, for a table that
    was learned with `old` patches.

    For a larger grid (BEiT's code), the learned relative position k is assigned to 1 + q + ... +
    q^(k-1), with q such that the largest learned position is assigned to the largest new one. So
    small relative positions keep their biases, and large ones are stretched. For a smaller grid,
    the coordinates are the positions themselves.
    """
    if new <= old or old < 2:
        return [min(float(k), old - 1.0) for k in range(1, new)]
    low, high = 1.0, 2.0 * new
    for _ in range(80):  # bisection for q
        ratio = (low + high) / 2
        low, high = (low, ratio) if sum(ratio**k for k in range(old - 1)) > new - 1 else (ratio, high)
    learned = [sum(low**i for i in range(k)) for k in range(old)]
    coordinates = []
    for position in range(1, new):
        below = max(k for k in range(old - 1) if learned[k] <= position)
        fraction = (position - learned[below]) / (learned[below + 1] - learned[below])
        coordinates.append(min(below + fraction, old - 1.0))
    return coordinates
