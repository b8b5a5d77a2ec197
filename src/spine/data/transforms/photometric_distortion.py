"""The photometric distortion of SSD (Liu et al., arXiv 1512.02325, section 2.2) as mmsegmentation implements it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from spine.interfaces import RawSample, SampleTransform

HUES = 180  # of OpenCV's 8-bit HSV


class PhotometricDistortion(SampleTransform):
    """Changes brightness, contrast, saturation and hue, each with probability 0.5, in this order.

    Contrast changes before saturation and hue or after them, with probability 0.5. Every change is
    rounded down to 8 bits, as in mmsegmentation.
    """

    geometric = False

    def __init__(
        self,
        brightness_delta: float = 32,
        contrast_range: Sequence[float] = (0.5, 1.5),
        saturation_range: Sequence[float] = (0.5, 1.5),
        hue_delta: int = 18,
    ):
        """`brightness_delta`: largest number that is added to or subtracted from pixels in 0..255.
        `contrast_range`: of the factor of the pixels. `saturation_range`: of the factor of the
        saturation. `hue_delta`: largest change of the hue in steps of two degrees; 0 leaves it.
        """
        self.brightness_delta, self.hue_delta = float(brightness_delta), int(hue_delta)
        self.contrast_range = float(contrast_range[0]), float(contrast_range[1])
        self.saturation_range = float(saturation_range[0]), float(saturation_range[1])

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the sample with a distorted image."""
        image = sample["image"]
        if rng.integers(2):
            image = cv2.LUT(image, linear_table(1.0, rng.uniform(-self.brightness_delta, self.brightness_delta)))
        contrast_first = rng.integers(2)
        if contrast_first:
            image = self.change_contrast(image, rng)
        if rng.integers(2):
            image = change_hsv(image, 1, linear_table(rng.uniform(*self.saturation_range), 0.0))
        if rng.integers(2) and self.hue_delta:
            turned = (np.arange(256) + rng.integers(-self.hue_delta, self.hue_delta)) % HUES
            image = change_hsv(image, 0, turned.astype(np.uint8))
        if not contrast_first:
            image = self.change_contrast(image, rng)
        sample["image"] = image
        return sample

    def change_contrast(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Multiplies the pixels by a random factor, with probability 0.5."""
        return cv2.LUT(image, linear_table(rng.uniform(*self.contrast_range), 0.0)) if rng.integers(2) else image


def linear_table(factor: float, offset: float) -> np.ndarray:
    """Returns a table (256,) uint8 of factor * value + offset, clipped to 0..255 and rounded down."""
    return np.clip(np.arange(256, dtype=np.float32) * factor + offset, 0, 255).astype(np.uint8)


def change_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Returns an image (H, W, 3) RGB in which one channel of its HSV representation went through a table (256,)."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., channel] = cv2.LUT(np.ascontiguousarray(hsv[..., channel]), table)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
