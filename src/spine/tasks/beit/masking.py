"""Block-wise patch masks of BEiT."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

PUBLISHED_GRID = 14 * 14  # patches, for which the numbers of the paper are given
ATTEMPTS = 10  # to place a block


class RandomNumbers(Protocol):
    """What the masks need of a random generator. NumPy's `Generator` has it."""

    def random(self) -> float:
        """Returns a number from 0 to 1."""

    def integers(self, low: int, high: int) -> int:
        """Returns a whole number from `low` to `high` - 1."""


@dataclass(frozen=True)
class BlockPatchMask:
    """Masks rectangles of patches (BEiT, arXiv 2106.08254, algorithm 1): a generator -> patch_mask (N,), True = masked.

    The authors' code (microsoft/unilm, beit/masking_generator.py) differs from the algorithm of the paper and is followed here:
    at most `max_masked` patches are masked, and a block must be lower and narrower than the grid.
    """

    grid: tuple[int, int]  # patches down and across
    max_masked: int  # over all blocks
    min_area: float  # lower bound of the area that is drawn for a block, in patches
    min_aspect: float = 0.3  # height over width is between this and its inverse

    @classmethod
    def scaled(cls, grid: tuple[int, int], max_masked: int, min_block: int) -> BlockPatchMask:
        """The mask of a grid, from numbers of patches of the 14x14 grid of the paper, which masks at most 75 in blocks of at least 16.

        `max_masked` scales with the number of patches, `min_block` with that of smaller grids: their blocks must fit in the grid.
        """
        scale = grid[0] * grid[1] / PUBLISHED_GRID
        return cls(grid, max_masked=max(1, round(max_masked * scale)), min_area=max(1.0, min_block * min(1.0, scale)))

    def __call__(self, rng: np.random.Generator) -> Tensor:
        """A patch_mask (N,) bool in raster order, with at least one masked patch."""
        return torch.from_numpy(self.draw(rng).ravel())

    def draw(self, rng: RandomNumbers) -> np.ndarray:
        """A mask (h, w) bool. The numbers are drawn in the order of the authors' code."""
        mask = np.zeros(self.grid, bool)
        while (left := self.max_masked - int(mask.sum())) > 0:
            if not self._add_block(mask, left, rng):
                break
        if not mask.any():  # no block fitted, which can only happen on tiny grids
            mask[rng.integers(0, self.grid[0]), rng.integers(0, self.grid[1])] = True
        return mask

    def _add_block(self, mask: np.ndarray, left: int, rng: RandomNumbers) -> bool:
        """Masks one block with at least one and at most `left` new patches. Returns whether one was found."""
        for _ in range(ATTEMPTS):
            area = self.min_area + (left - self.min_area) * rng.random()  # `left` may be the smaller one
            low, high = math.log(self.min_aspect), math.log(1 / self.min_aspect)
            aspect = math.exp(low + (high - low) * rng.random())
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= self.grid[0] or width >= self.grid[1]:
                continue
            top = rng.integers(0, self.grid[0] - height + 1)
            side = rng.integers(0, self.grid[1] - width + 1)
            block = mask[top : top + height, side : side + width]
            if 0 < block.size - int(block.sum()) <= left:
                block[:] = True
                return True
        return False
