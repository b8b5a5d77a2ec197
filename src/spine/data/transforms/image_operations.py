"""Operations of AutoAugment, RandAugment and their successors, with the magnitudes of timm.

The operations are Pillow's, as in timm and torchvision, so that every pixel is the same. Those of
albumentations have other magnitudes, and some differ by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from spine.data.transforms.resizing import FILTERS
from spine.errors import InputError

MAX_LEVEL = 10.0  # the level of the largest magnitude, unless `mmax` is given
IMAGENET_FILL = (124, 116, 104)  # mean of ImageNet in 0..255
Color = tuple[int, int, int]
Rng = np.random.Generator


class Border(NamedTuple):
    """How an operation that moves pixels resamples them, and the color outside of the image."""

    filter: Image.Resampling
    fill: Color


# ---- operations: argument and, if they move pixels, border -----------------------------------------------------------


def affine(image: Image.Image, matrix: tuple[float, ...], border: Border) -> Image.Image:
    """Moves pixels. `matrix` maps places of the result to places of the image."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, border.filter, fillcolor=border.fill)


def shear_x(image: Image.Image, factor: float, border: Border) -> Image.Image:
    """Moves each row by `factor` times its distance from the top."""
    return affine(image, (1, factor, 0, 0, 1, 0), border)


def shear_y(image: Image.Image, factor: float, border: Border) -> Image.Image:
    """Moves each column by `factor` times its distance from the left."""
    return affine(image, (1, 0, 0, factor, 1, 0), border)


def translate_x(image: Image.Image, pixels: float, border: Border) -> Image.Image:
    """Moves the image to the left by a number of pixels."""
    return affine(image, (1, 0, pixels, 0, 1, 0), border)


def translate_y(image: Image.Image, pixels: float, border: Border) -> Image.Image:
    """Moves the image up by a number of pixels."""
    return affine(image, (1, 0, 0, 0, 1, pixels), border)


def translate_x_part(image: Image.Image, part: float, border: Border) -> Image.Image:
    """Moves the image to the left by a part of its width."""
    return translate_x(image, part * image.size[0], border)


def translate_y_part(image: Image.Image, part: float, border: Border) -> Image.Image:
    """Moves the image up by a part of its height."""
    return translate_y(image, part * image.size[1], border)


def rotate(image: Image.Image, degrees: float, border: Border) -> Image.Image:
    """Rotates counterclockwise."""
    return image.rotate(degrees, border.filter, fillcolor=border.fill)


def posterize(image: Image.Image, bits: float) -> Image.Image:
    """Keeps the highest bits of each channel. 0 gives a black image, which Pillow 13 refuses and earlier versions did not."""
    mask = 256 - 2 ** (8 - int(bits))
    return image.point([value & mask for value in range(256)] * 3)


def solarize_add(image: Image.Image, added: float) -> Image.Image:
    """Adds a number to the pixels below 128."""
    table = [min(255, i + int(added)) if i < 128 else i for i in range(256)]
    return image.point(table * 3)


def desaturate(image: Image.Image, part: float) -> Image.Image:
    """Removes a part of the color; 1 gives a gray image."""
    return ImageEnhance.Color(image).enhance(min(1.0, max(0.0, 1.0 - part)))


def gaussian_blur(image: Image.Image, radius: float) -> Image.Image:
    """Blurs with a standard deviation of `radius` pixels."""
    return image.filter(ImageFilter.GaussianBlur(radius))


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, factor: kind(image).enhance(factor)


color, contrast, brightness, sharpness = map(
    _enhance, (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness, ImageEnhance.Sharpness)
)


# ---- arguments of the operations by level ----------------------------------------------------------------------------

Argument = Callable[[float, Rng], float]  # level and random generator -> argument of an operation


def signed(value: float, rng: Rng) -> float:
    """Returns the value with a random sign."""
    return -value if rng.random() > 0.5 else value


def _signed(largest: float) -> Argument:
    return lambda level, rng: signed(level / MAX_LEVEL * largest, rng)


def _between(low: float, high: float) -> Argument:
    return lambda level, rng: max(low, min(high, low + (high - low) * (level / MAX_LEVEL)))


def _enhancement(level: float, rng: Rng) -> float:
    """A factor in 0.1..1.9; 1 changes nothing."""
    return level / MAX_LEVEL * 1.8 + 0.1


def _increasing_enhancement(level: float, rng: Rng) -> float:
    """A factor whose distance from 1 grows with the level."""
    return max(0.1, 1.0 + signed(level / MAX_LEVEL * 0.9, rng))


def _bits(level: float, rng: Rng) -> float:
    return int(level / MAX_LEVEL * 4)


def _threshold(level: float, rng: Rng) -> float:
    return min(256, int(level / MAX_LEVEL * 256))


def _blur_radius(level: float, rng: Rng) -> float:
    return rng.uniform(0.1, 2.0 * max(0.0, min(1.0, level / MAX_LEVEL)))


class Operation(NamedTuple):
    """An operation on an image, and its argument by level; None if it has no argument."""

    apply: Callable[..., Image.Image]
    argument: Argument | None = None
    moves: bool = False  # whether it moves pixels, and takes a Border


OPERATIONS = {  # timm's names
    "AutoContrast": Operation(ImageOps.autocontrast),
    "Equalize": Operation(ImageOps.equalize),
    "Invert": Operation(ImageOps.invert),
    "Rotate": Operation(rotate, _signed(30.0), moves=True),
    "Posterize": Operation(posterize, _bits),
    "PosterizeIncreasing": Operation(posterize, lambda level, rng: 4 - _bits(level, rng)),
    "PosterizeOriginal": Operation(posterize, lambda level, rng: 4 + _bits(level, rng)),
    "Solarize": Operation(ImageOps.solarize, _threshold),
    "SolarizeIncreasing": Operation(ImageOps.solarize, lambda level, rng: 256 - _threshold(level, rng)),
    "SolarizeAdd": Operation(solarize_add, lambda level, rng: min(128, int(level / MAX_LEVEL * 110))),
    "Color": Operation(color, _enhancement),
    "ColorIncreasing": Operation(color, _increasing_enhancement),
    "Contrast": Operation(contrast, _enhancement),
    "ContrastIncreasing": Operation(contrast, _increasing_enhancement),
    "Brightness": Operation(brightness, _enhancement),
    "BrightnessIncreasing": Operation(brightness, _increasing_enhancement),
    "Sharpness": Operation(sharpness, _enhancement),
    "SharpnessIncreasing": Operation(sharpness, _increasing_enhancement),
    "ShearX": Operation(shear_x, _signed(0.3), moves=True),
    "ShearY": Operation(shear_y, _signed(0.3), moves=True),
    "TranslateXRel": Operation(translate_x_part, _signed(0.45), moves=True),
    "TranslateYRel": Operation(translate_y_part, _signed(0.45), moves=True),
    "Desaturate": Operation(desaturate, _between(0.5, 1.0)),
    "GaussianBlur": Operation(gaussian_blur, _between(0.1, 2.0)),
    "GaussianBlurRand": Operation(gaussian_blur, _blur_radius),
}


class Magnitude(NamedTuple):
    """The distribution of the level of an operation."""

    std: float = 0.0  # of a normal distribution around the level; infinity: uniform between 0 and the level
    max: float = MAX_LEVEL

    def draw(self, level: float, rng: Rng) -> float:
        """Returns a random level in 0..max."""
        if self.std == float("inf"):
            level = rng.uniform(0, level)
        elif self.std > 0:
            level = rng.normal(level, self.std)
        return max(0.0, min(level, self.max))


@dataclass(frozen=True)
class Resampling:
    """Draws how operations resample that move pixels. `filters`: one of them is drawn for each operation."""

    filters: tuple[Image.Resampling, ...]
    fill: Color

    def draw(self, rng: Rng) -> Border:
        """Returns the resampling of one operation."""
        chosen = self.filters[rng.integers(len(self.filters))] if len(self.filters) > 1 else self.filters[0]
        return Border(chosen, self.fill)


def make_resampling(interpolation: str, fill: Sequence[int] | None) -> Resampling:
    """Returns the resampling of a configuration.

    `interpolation`: nearest, bilinear, bicubic, or random for bilinear or bicubic. `fill`: RGB in
    0..255; None is the mean of ImageNet. Raises InputError for other values.
    """
    bilinear, bicubic = FILTERS["bilinear"], FILTERS["bicubic"]
    filters = {
        "nearest": (Image.Resampling.NEAREST,), "bilinear": (bilinear,), "bicubic": (bicubic,), "random": (bilinear, bicubic),
    }  # fmt: skip
    if interpolation not in filters:
        raise InputError(f"interpolation is '{interpolation}'; choices: {', '.join(filters)}.")
    color = IMAGENET_FILL if fill is None else tuple(fill)
    if len(color) != 3 or not all(0 <= value <= 255 for value in color):
        raise InputError(f"fill is {list(color)}; it must be three whole numbers from 0 to 255 (red, green, blue), or null.")
    return Resampling(filters[interpolation], (color[0], color[1], color[2]))


@dataclass(frozen=True)
class RandomOperation:
    """An operation that is applied with a probability, at a level that may be random."""

    name: str  # a key of OPERATIONS
    probability: float
    level: float
    magnitude: Magnitude
    resampling: Resampling

    def __call__(self, image: Image.Image, rng: Rng) -> Image.Image:
        """Returns the changed image, or the same one."""
        if self.probability < 1.0 and rng.random() > self.probability:
            return image
        operation, level = OPERATIONS[self.name], self.magnitude.draw(self.level, rng)
        if operation.argument is None:
            return operation.apply(image)
        argument = operation.argument(level, rng)
        return (
            operation.apply(image, argument, self.resampling.draw(rng)) if operation.moves else operation.apply(image, argument)
        )
