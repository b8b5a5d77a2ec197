"""TrivialAugment with the wide set of operations and the magnitudes of torchvision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from spine.data.transforms import image_operations as operations
from spine.data.transforms.auto_augment import ImagePolicy
from spine.data.transforms.image_operations import Border, make_resampling
from spine.errors import InputError


class WideOperation(NamedTuple):
    """An operation with an argument between its values at the lowest and at the highest level."""

    apply: Callable[[Image.Image, float, Border], Image.Image]
    lowest: float = 0.0
    highest: float = 0.0
    signed: bool = False

    def has_levels(self) -> bool:
        """Whether the operation has an argument."""
        return self.lowest != self.highest


def _enhanced(by: Callable[[Image.Image, float], Image.Image]) -> WideOperation:
    return WideOperation(lambda image, change, _: by(image, 1.0 + change), 0.0, 0.99, signed=True)


WIDE = (  # in the order of torchvision
    WideOperation(lambda image, *_: image),
    WideOperation(operations.shear_x, 0.0, 0.99, signed=True),
    WideOperation(operations.shear_y, 0.0, 0.99, signed=True),
    WideOperation(lambda image, pixels, border: operations.translate_x(image, -int(pixels), border), 0.0, 32.0, signed=True),
    WideOperation(lambda image, pixels, border: operations.translate_y(image, -int(pixels), border), 0.0, 32.0, signed=True),
    WideOperation(operations.rotate, 0.0, 135.0, signed=True),
    _enhanced(operations.brightness),
    _enhanced(operations.color),
    _enhanced(operations.contrast),
    _enhanced(operations.sharpness),
    WideOperation(lambda image, bits, _: operations.posterize(image, round(bits)), 8.0, 2.0),
    WideOperation(lambda image, threshold, _: ImageOps.solarize(image, math.ceil(threshold)), 255.0, 0.0),
    WideOperation(lambda image, *_: ImageOps.autocontrast(image)),
    WideOperation(lambda image, *_: ImageOps.equalize(image)),
)


class TrivialAugment(ImagePolicy):
    """Applies one random operation at a random level to the image (Müller and Hutter, arXiv 2103.10158).

    The operations and levels are those of torchvision's TrivialAugmentWide. They do not depend on a
    setting.
    """

    def __init__(self, fill: Sequence[int] | None = (0, 0, 0), interpolation: str = "nearest", bins: int = 31):
        """`fill`: color (R, G, B) in 0..255 outside of a moved image; None is the mean of ImageNet.

        `interpolation` of a moved image: nearest, bilinear, bicubic, or random (bilinear or bicubic).
        `bins`: number of levels. Raises InputError if it is below 2.
        """
        if bins < 2:
            raise InputError(f"TrivialAugment: bins is {bins}; it must be at least 2.")
        self.resampling, self.bins = make_resampling(interpolation, fill), bins

    def change(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Returns the image after one operation."""
        operation = WIDE[rng.integers(len(WIDE))]
        argument = operation.lowest
        if operation.has_levels():
            argument += (operation.highest - operation.lowest) * int(rng.integers(self.bins)) / (self.bins - 1)
        if operation.signed and rng.integers(2):
            argument = -argument
        return operation.apply(image, argument, self.resampling.draw(rng))
