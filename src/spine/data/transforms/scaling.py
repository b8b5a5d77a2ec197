"""Resizing with the aspect ratio kept: the scales of segmentation papers, as in mmsegmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spine.data.transforms.geometry import GeometricTransform, scale_matrix
from spine.data.transforms.resizing import Size, check_interpolation, resize
from spine.errors import InputError
from spine.interfaces import RawSample


class ResizeToScale(GeometricTransform):
    """Resizes an image to the largest size within a scale, with its aspect ratio kept.

    A scale limits the longer and the shorter side: with [2048, 512] the shorter side becomes 512, or
    less if the longer one would exceed 2048.
    """

    whole_image = True

    def __init__(self, scale: Sequence[int] | None, interpolation: str | None = "linear"):
        """`scale`: the limits of both sides, in any order; None for the size of the image itself.

        `interpolation` of the image: see `Resize`; "linear" is that of mmsegmentation.
        """
        self.scale = None if scale is None else (int(scale[0]), int(scale[1]))
        self.interpolation = check_interpolation(interpolation)

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the resized sample."""
        return self.resized(sample, size_within(sample["image"].shape[:2], self.scale or sample["image"].shape[:2]))

    def resized(self, sample: RawSample, size: Size) -> RawSample:
        """Returns the sample at `size`."""
        self.transform_keypoints(sample, scale_matrix(sample["image"].shape[:2], size))
        self.transform_image_and_mask(
            sample, lambda array, is_mask: resize(array, size, "nearest" if is_mask else self.interpolation)
        )
        return sample


class RandomResize(ResizeToScale):
    """Resizes an image to the largest size within a scale times a random ratio, with its aspect ratio kept."""

    def __init__(
        self, scale: Sequence[int] | None, ratio_range: Sequence[float] = (0.5, 2.0), interpolation: str | None = "linear"
    ):
        """`scale`, `interpolation`: see `ResizeToScale`. `ratio_range`: of the ratio.

        Raises InputError if the range is not ascending and above 0.
        """
        super().__init__(scale, interpolation)
        self.ratio_range = float(ratio_range[0]), float(ratio_range[1])
        if not 0 < self.ratio_range[0] <= self.ratio_range[1]:
            raise InputError(f"ratio_range of RandomResize is {list(ratio_range)}; it must be two ascending numbers above 0.")

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the sample at a random size."""
        low, high = self.ratio_range
        ratio = rng.random() * (high - low) + low
        size = sample["image"].shape[:2]
        scale = self.scale or size
        return self.resized(sample, size_within(size, (int(scale[0] * ratio), int(scale[1] * ratio))))


class ResizeToMultiple(ResizeToScale):
    """Enlarges an image so that its sides are multiples of a number. It may change the aspect ratio a little."""

    def __init__(self, divisor: int = 32, interpolation: str | None = "linear"):
        """`divisor`: of both sides. `interpolation`: see `ResizeToScale`."""
        super().__init__(None, interpolation)
        self.divisor = int(divisor)
        if self.divisor < 1:
            raise InputError(f"divisor of ResizeToMultiple is {divisor}; it must be a whole number of pixels, 1 or more.")

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the enlarged sample."""
        height, width = (-(-side // self.divisor) * self.divisor for side in sample["image"].shape[:2])
        return self.resized(sample, (height, width))


def size_within(size: Size, scale: tuple[int, int]) -> Size:
    """Returns the largest (height, width) within a scale that has the aspect ratio of `size`, rounded as mmcv rounds."""
    factor = min(max(scale) / max(size), min(scale) / min(size))
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))
