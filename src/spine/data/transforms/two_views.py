"""The two views of BEiT's pre-training: the same region of an image at the size of the network and at that of the tokenizer.

A step chooses the region (`RandomRegion`, `CenterRegion`), and `TwoViews` resizes it twice (Bao et al., arXiv 2106.08254, section 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spine.data.transforms.geometry import GeometricTransform, Resize, scale_matrix
from spine.data.transforms.resizing import Size, check_interpolation, resize
from spine.interfaces import RawSample

ATTEMPTS = 10  # to draw a region that is inside the image, as in torchvision


class Region(NamedTuple):
    """A rectangle in pixels of an image."""

    top: int
    left: int
    height: int
    width: int

    def divided(self, scale: int, size: Size) -> Region:
        """The nearest region in whole pixels of an image of `size` (height, width) at 1 / `scale` of its size."""
        top, left = (min(round(start / scale), side // scale - 1) for start, side in zip(self[:2], size, strict=True))
        bottom = min(round((self.top + self.height) / scale), size[0] // scale)
        right = min(round((self.left + self.width) / scale), size[1] // scale)
        return Region(top, left, max(1, bottom - top), max(1, right - left))


class CropRegion(GeometricTransform):
    """Base class of the transforms that crop a region and do not resize it."""

    def crop(self, sample: RawSample, region: Region) -> RawSample:
        """Returns the sample with only the pixels of the region."""
        top, left, height, width = region
        size = sample["image"].shape[:2]
        self.transform_keypoints(sample, scale_matrix(size, size, top, left))
        self.transform_image_and_mask(sample, lambda array, is_mask: array[top : top + height, left : left + width])
        return sample


class RandomRegion(CropRegion):
    """Crops a region of random area, aspect ratio and place: the crop of torchvision's RandomResizedCrop, without resizing."""

    def __init__(self, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)):
        """`scale`: range of the area, as a fraction of that of the image. `ratio`: range of width / height."""
        self.scale, self.ratio = (float(scale[0]), float(scale[1])), (float(ratio[0]), float(ratio[1]))

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns a random region of the sample."""
        height, width = sample["image"].shape[:2]
        return self.crop(sample, self.draw((height, width), rng))

    def draw(self, size: Size, rng: np.random.Generator) -> Region:
        """A region of an image of `size` (height, width). The largest one in the center if the drawn ones do not fit."""
        for _ in range(ATTEMPTS):
            area = size[0] * size[1] * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < height <= size[0] and 0 < width <= size[1]:
                top, left = rng.integers(size[0] - height, endpoint=True), rng.integers(size[1] - width, endpoint=True)
                return Region(int(top), int(left), height, width)
        return center_region(size, min(max(size[1] / size[0], self.ratio[0]), self.ratio[1]))


class CenterRegion(CropRegion):
    """Crops the region in the center that has the aspect ratio of `size` (height, width), and does not resize it."""

    def __init__(self, size: Sequence[int], crop_pct: float = 1.0):
        """`crop_pct`: the part of the image that the region covers along the side that limits it."""
        self.ratio, self.crop_pct = size[1] / size[0], crop_pct

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the center of the sample."""
        height, width = sample["image"].shape[:2]
        return self.crop(sample, center_region((height, width), self.ratio, self.crop_pct))


def center_region(size: Size, ratio: float, part: float = 1.0) -> Region:
    """The region with the aspect ratio width / height in the center of an image of `size` (height, width).

    `part`: the part of the limiting side that it covers.
    """
    limit = min(size[0], size[1] / ratio) * part  # height of the region
    height, width = (max(1, min(side, round(wanted))) for side, wanted in zip(size, (limit, limit * ratio), strict=True))
    return Region((size[0] - height) // 2, (size[1] - width) // 2, height, width)


class TwoViews(Resize):
    """Resizes to `size` (height, width), and adds the same pixels at `second_size` as `tokenizer_image`.

    Steps that move pixels must come before it, so that both views show the same.
    """

    def __init__(
        self,
        size: Sequence[int],
        second_size: Sequence[int] | None = None,
        interpolation: str | None = "bicubic",
        second_interpolation: str | None = "lanczos",
    ):
        """`second_size`: of the image for the tokenizer; None adds none.

        `interpolation`, `second_interpolation`: see `Resize`.
        """
        super().__init__(size, interpolation)
        self.second_size = (int(second_size[0]), int(second_size[1])) if second_size is not None else None
        self.second_interpolation = check_interpolation(second_interpolation)

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the sample with both views."""
        if self.second_size is not None:
            sample["tokenizer_image"] = resize(sample["image"], self.second_size, self.second_interpolation)
        return super().__call__(sample, rng)
