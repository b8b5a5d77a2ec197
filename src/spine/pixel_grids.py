"""Pixel grids: how coordinates change when a picture changes its size, for each codec of keypoints.

The center of the first pixel of an image or heatmap is always at 0. The grids differ in what a
change of the size maps to itself. A crop by a box, the targets, the decoding and the flip test all
have to use the same grid, because an error of half a heatmap pixel is two pixels of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

Positions = TypeVar("Positions")  # a number, an array or a tensor


class PixelGrid(NamedTuple):
    """The picture on a side of n pixels extends from `start` to `start + n - less`."""

    start: float
    less: int

    def length(self, side: int) -> int:
        """Returns the length of the picture on a side of `side` pixels."""
        return side - self.less

    def rescale(self, positions: Positions, old: int, new: int) -> Positions:
        """Returns positions on a side of `old` pixels as positions on one of `new` pixels."""
        return (positions - self.start) * (self.length(new) / self.length(old)) + self.start  # type: ignore[operator, return-value]


AREAS = PixelGrid(-0.5, 0)  # areas of pixels: -0.5 to n - 0.5; what cv2.resize and torch's interpolate do
ORIGINS = PixelGrid(0.0, 0)  # x / stride: 0 to n; HRNet's code (arXiv 1902.09212). Flipping moves it by a pixel less a stride
CENTERS = PixelGrid(0.0, 1)  # centers of the first and the last pixel: 0 to n - 1; UDP (arXiv 1911.07524)

GRIDS: Mapping[str, PixelGrid] = {"fractional": AREAS, "msra": ORIGINS, "dark": ORIGINS, "udp": CENTERS}  # by codec
