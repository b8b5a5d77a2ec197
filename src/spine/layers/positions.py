"""What tells tokens where they are: tables of positions and of offsets, and how they meet another image size."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from spine.errors import InputError
from spine.layers.precision import at_least_float32

Grid = tuple[int, int]  # patches down and across


def sincos_positions(dim: int, grid: Grid) -> Tensor:
    """Fixed two-dimensional sine-cosine positions (1, h * w, dim), the column first, as in MAE (`util/pos_embed.py`)."""
    if dim % 4:
        raise InputError(f"Sine-cosine positions need a width that is a multiple of 4; it is {dim}.")
    frequencies = 1.0 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (columns, rows)]  # each (h * w, dim / 4)
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)[None].float()


def resize_positions(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Resizes a table (1, extra + h * w, D) of positions as a two-dimensional grid, bicubically; what stands before it is kept."""
    if tuple(old) == tuple(new):
        return table
    extra = table.shape[1] - old[0] * old[1]
    kept, grid = table[:, :extra], table[:, extra:]
    grid = at_least_float32(grid.reshape(1, *old, -1).permute(0, 3, 1, 2))
    grid = F.interpolate(grid, new, mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([kept, grid.flatten(2).transpose(1, 2).to(kept.dtype)], dim=1)


def progression(old: int, new: int) -> list[float]:
    """Where the offsets 1 .. new - 1 lie among the offsets 0 .. old - 1 of a table that was learned for `old` patches.

    The old offset k is put at 1 + q + ... + q^(k-1), with q such that the farthest old one meets the farthest new one: near offsets keep
    their meaning, far ones are stretched (BEiT's code). A smaller grid takes the near ones as they are.
    """
    if new <= old or old < 2:
        return [min(float(k), old - 1.0) for k in range(1, new)]
    low, high = 1.0, 2.0 * new
    for _ in range(80):  # bisection
        ratio = (low + high) / 2
        low, high = (low, ratio) if sum(ratio**k for k in range(old - 1)) > new - 1 else (ratio, high)
    places = [sum(low**i for i in range(k)) for k in range(old)]
    where = []
    for offset in range(1, new):
        below = max(k for k in range(old - 1) if places[k] <= offset)
        where.append(min(below + (offset - places[below]) / (places[below + 1] - places[below]), old - 1.0))
    return where


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)  # a cached inference tensor would stop the training that comes after it
def sampling_points(old: Grid, new: Grid) -> Tensor:
    """Points (1, 2h' - 1, 2w' - 1, 2) x, y in [-1, 1] of a table for `old` patches at which one for `new` patches is read."""
    axes = []
    for before, after in zip(old, new, strict=True):
        far = [place / max(before - 1, 1) for place in progression(before, after)]
        axes.append(torch.tensor([*(-x for x in reversed(far)), 0.0, *far], dtype=torch.float64, device="cpu"))
    y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y], dim=-1)[None]


def resize_relative_positions(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Resizes a table ((2h - 1)(2w - 1) + extra, heads) of offsets in two dimensions; what stands behind it is kept.

    Offsets are spaced in a geometric progression as in BEiT's code, which interpolates by a cubic spline; here by cubic convolution.
    """
    if tuple(old) == tuple(new):
        return table
    rows, columns = (2 * side - 1 for side in old)
    grid, kept = table[: rows * columns], table[rows * columns :]
    maps = at_least_float32(grid.T.reshape(1, -1, rows, columns))
    points = sampling_points(tuple(old), tuple(new)).to(maps)
    maps = F.grid_sample(maps, points, mode="bicubic", padding_mode="border", align_corners=True)
    return torch.cat([maps[0].flatten(1).T.to(kept.dtype), kept])
