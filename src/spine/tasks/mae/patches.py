"""Converts images to sequences of patches and back."""

from __future__ import annotations

from torch import Tensor


def patchify(image: Tensor, patch: int) -> Tensor:
    """Splits images (B, C, H, W) into patches (B, N, P * P * C) in raster order.

    The pixels of a patch are in the order row, column, channel, as in MAE. `patch`: side P.
    """
    B, C, H, W = image.shape
    x = image.reshape(B, C, H // patch, patch, W // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(B, (H // patch) * (W // patch), patch * patch * C)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """Joins patches (B, N, P * P * C) to images (B, C, H, W): the inverse of `patchify`.

    `grid`: patches along height and width.
    """
    x = patches.unflatten(2, (patch, patch, -1)).unflatten(1, grid)  # (B, h, w, P, P, C)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, grid[0] * patch, grid[1] * patch)
