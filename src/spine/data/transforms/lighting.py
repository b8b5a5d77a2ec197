"""PCA lighting of AlexNet."""

from __future__ import annotations

import cv2
import numpy as np

from spine.errors import InputError
from spine.interfaces import RawSample, SampleTransform

# Principal components of the colors of ImageNet in 0..255: standard deviations, and directions in columns (red, green, blue in rows).
DEVIATIONS = np.array([55.46, 4.794, 1.148])
DIRECTIONS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


class Lighting(SampleTransform):
    """Adds a random color to the image, along the principal components of the colors of ImageNet.

    Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, section 4.1.
    """

    geometric = False

    def __init__(self, std: float = 0.1):
        """`std`: of the random factor of each component. Raises InputError if it is negative."""
        if std < 0:
            raise InputError(f"Lighting: std is {std}; it must be 0 or more.")
        self.std = std

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the sample with another color of the light."""
        added = DIRECTIONS @ (rng.normal(0.0, self.std, 3) * DEVIATIONS)
        table = np.clip(np.rint(np.arange(256)[:, None] + added), 0, 255).astype(np.uint8)
        sample["image"] = cv2.LUT(sample["image"], table[None])
        return sample
