"""Random erasing: rectangles of the normalized image are replaced by noise or by a color."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from spine.errors import InputError
from spine.interfaces import RawSample, SampleTransform

ATTEMPTS = 10  # to draw a rectangle that is smaller than the image


class RandomErasing(SampleTransform):
    """Replaces random rectangles of the normalized image (Zhong et al., arXiv 1708.04896), as timm's RandomErasing does.

    It is applied after normalization, so it is the last step. Masks and keypoints stay.
    """

    geometric = False
    after_normalization = True

    def __init__(
        self,
        probability: float = 0.5,
        mode: Literal["pixel", "rand", "const"] = "const",
        min_area: float = 0.02,
        max_area: float = 1 / 3,
        min_aspect: float = 0.3,
        max_aspect: float | None = None,
        min_count: int = 1,
        max_count: int | None = None,
    ):
        """`probability`: of erasing anything in an image. `mode`: "pixel" is normal noise in every pixel
        and channel, "rand" one random color for each rectangle, "const" the mean color (0).

        `min_area`, `max_area`: of all rectangles together, as a fraction of the image. `min_aspect`,
        `max_aspect`: height / width; None is 1 / min_aspect. `min_count`, `max_count`: number of
        rectangles; None is min_count. Raises InputError if a range is empty.
        """
        if mode not in ("pixel", "rand", "const"):
            raise InputError(f"RandomErasing: mode is '{mode}'; choices: pixel, rand, const.")
        if not 0 <= probability <= 1:
            raise InputError(f"RandomErasing: probability is {probability}; it must be from 0 to 1.")
        self.probability, self.mode = probability, mode
        self.areas, self.counts = (min_area, max_area), (min_count, min_count if max_count is None else max_count)
        aspects = min_aspect, 1 / min_aspect if max_aspect is None and min_aspect > 0 else max_aspect or 0.0
        for name, (low, high), least in (("area", self.areas, 0.0), ("aspect", aspects, 1e-6), ("count", self.counts, 1)):
            if not least <= low <= high:
                raise InputError(f"RandomErasing: min_{name} is {low} and max_{name} is {high}; they are no range.")
        self.log_aspects = math.log(aspects[0]), math.log(aspects[1])

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Erases rectangles of the normalized image (H, W, 3) in place."""
        if rng.random() > self.probability:
            return sample
        image, (low, high) = sample["image"], self.counts
        count = low if low == high else int(rng.integers(low, high, endpoint=True))
        for _ in range(count):
            if (place := self._draw_place(image.shape[0], image.shape[1], count, rng)) is not None:
                image[place] = self._draw_pixels(image[place].shape, rng)
        return sample

    def _draw_place(self, height: int, width: int, count: int, rng: np.random.Generator) -> tuple[slice, slice] | None:
        """Rows and columns of a rectangle. None if no attempt fits."""
        for _ in range(ATTEMPTS):
            area = rng.uniform(*self.areas) * height * width / count
            aspect = math.exp(rng.uniform(*self.log_aspects))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                top, left = (int(rng.integers(0, rest, endpoint=True)) for rest in (height - h, width - w))
                return slice(top, top + h), slice(left, left + w)
        return None

    def _draw_pixels(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray | float:
        """Values for a rectangle of `shape` (h, w, 3)."""
        height, width, channels = shape
        if self.mode == "pixel":
            return rng.standard_normal((channels, height, width), dtype=np.float32).transpose(1, 2, 0)
        return rng.standard_normal(channels, dtype=np.float32) if self.mode == "rand" else 0.0
