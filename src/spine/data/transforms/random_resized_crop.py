"""The random resized crop of timm and torchvision, with Pillow's filters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spine.data.transforms.geometry import scale_matrix
from spine.data.transforms.resizing import check_interpolation, resize
from spine.data.transforms.two_views import RandomRegion
from spine.interfaces import RawSample

RANDOM = ("bilinear", "bicubic")  # one of them is drawn for each image with interpolation "random"


class RandomResizedCrop(RandomRegion):
    """Crops a region of random area, aspect ratio and place, and resizes it to `size` (height, width)."""

    def __init__(
        self,
        size: Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str | None = "random",
    ):
        """`scale`: range of the area, as a fraction of that of the image. `ratio`: range of width / height.

        `interpolation` of the image: a filter of `resize`, such as "bicubic"; "random" for bilinear or
        bicubic, drawn for each image; None or "auto" selects by the change of size.
        """
        super().__init__(scale, ratio)
        self.size = int(size[0]), int(size[1])
        self.filters = RANDOM if interpolation == "random" else (check_interpolation(interpolation),)

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns a random region of the sample at `size`."""
        sample = super().__call__(sample, rng)
        chosen = self.filters[rng.integers(len(self.filters))] if len(self.filters) > 1 else self.filters[0]
        self.transform_keypoints(sample, scale_matrix(sample["image"].shape[:2], self.size))
        self.transform_image_and_mask(sample, lambda array, is_mask: resize(array, self.size, "nearest" if is_mask else chosen))
        return sample
