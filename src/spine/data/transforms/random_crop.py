"""The random crop of segmentation papers, and the padding to its size, as in mmsegmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spine.data.transforms.geometry import GeometricTransform
from spine.data.transforms.resizing import Size
from spine.data.transforms.two_views import CropRegion, Region
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, RawSample

ATTEMPTS = 10  # to draw a crop in which no class has too many pixels


class RandomCrop(CropRegion):
    """Crops a region of `size` (height, width) at a random place.

    A smaller image is not cropped along the side that is smaller; `Pad` brings it to the size.
    """

    def __init__(self, size: Sequence[int], cat_max_ratio: float = 1.0):
        """`cat_max_ratio`: a crop with a larger share of one class among its labeled pixels is drawn
        again, up to ATTEMPTS times. Raises InputError if it is not above 0 and at most 1.
        """
        self.size, self.cat_max_ratio = (int(size[0]), int(size[1])), cat_max_ratio
        if not 0 < cat_max_ratio <= 1:
            raise InputError(f"cat_max_ratio of RandomCrop is {cat_max_ratio}; it must be a fraction above 0 and at most 1.")

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns a random region of the sample."""
        height, width = sample["image"].shape[:2]
        region = self.draw((height, width), rng)
        if "mask" in sample and self.cat_max_ratio < 1:
            for _ in range(ATTEMPTS):
                if self.is_mixed(sample["mask"], region):
                    break
                region = self.draw((height, width), rng)
        return self.crop(sample, region)

    def draw(self, size: Size, rng: np.random.Generator) -> Region:
        """A region of an image of `size` (height, width)."""
        height, width = min(size[0], self.size[0]), min(size[1], self.size[1])
        top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
        return Region(top, left, height, width)

    def is_mixed(self, mask: np.ndarray, region: Region) -> bool:
        """Whether a region has two classes or more, and none has a share of `cat_max_ratio` of the labeled pixels.

        If classes may overlap, pixels without any class count as another class.
        """
        top, left, height, width = region
        part = mask[top : top + height, left : left + width]
        if part.ndim == 3:
            labeled, present = (part != IGNORE_INDEX).any(2), part == 1
            counts = np.array([(labeled & ~present.any(2)).sum(), *present.sum((0, 1))])
            total = labeled.sum()
        else:
            counts = np.bincount(part.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
            total = counts.sum()
        return bool(np.count_nonzero(counts) > 1 and counts.max() / total < self.cat_max_ratio)


class Pad(GeometricTransform):
    """Pads the normalized image with 0, which is the mean color, and its mask with ignored pixels, at the bottom and right."""

    after_normalization = True

    def __init__(self, size: Sequence[int]):
        """`size`: the smallest (height, width). Larger images stay as they are."""
        self.size = int(size[0]), int(size[1])

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the padded sample."""
        missing = [max(0, wanted - side) for wanted, side in zip(self.size, sample["image"].shape[:2], strict=True)]
        if not any(missing):
            return sample
        widths = [(0, missing[0]), (0, missing[1]), (0, 0)]
        self.transform_image_and_mask(
            sample,
            lambda array, is_mask: np.pad(array, widths[: array.ndim], constant_values=IGNORE_INDEX if is_mask else 0),
        )
        return sample
