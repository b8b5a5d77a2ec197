"""The embedded data set: textured shapes on textured backgrounds, rendered from a seed.

It has no files and works with every task.
"""

from __future__ import annotations

import zlib
from typing import ClassVar, NamedTuple

import cv2
import numpy as np

from spine.errors import InputError
from spine.interfaces import DataSet, Labels, RawSample

CLASSES = ("disc", "square", "triangle", "star", "cross")
KEYPOINTS = ("top", "right", "bottom", "left", "centre")


def _circle(count: int, radii: tuple[float, ...], start: float = -90.0) -> np.ndarray:
    """Returns `count` corners (count, 2) clockwise from `start` degrees, with `radii` in turn."""
    angles = np.deg2rad(start + np.arange(count) * 360 / count)
    return np.resize(radii, count)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)


_ARM = 0.42  # half the width of the arms of the cross
OUTLINES = {  # corners (M, 2) in coordinates in which the shape covers about -1..1, y down
    "disc": _circle(40, (0.95,)),
    "square": _circle(4, (1.1,), start=-135.0),
    "triangle": _circle(3, (1.15,)),
    "star": _circle(10, (1.15, 0.58)),
    "cross": np.array(
        [(-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
         (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM)], float),
}  # fmt: skip
_STAR, _TRIANGLE = OUTLINES["star"], OUTLINES["triangle"]
LANDMARKS = {  # (K, 2) in the same coordinates, in the order of KEYPOINTS
    "disc": np.array([(0, -0.95), (0.95, 0), (0, 0.95), (-0.95, 0), (0, 0)]),
    "square": 1.1 * np.sqrt(0.5) * np.array([(0, -1), (1, 0), (0, 1), (-1, 0), (0, 0)]),
    "triangle": np.array([_TRIANGLE[0], _TRIANGLE[1], (_TRIANGLE[1] + _TRIANGLE[2]) / 2, _TRIANGLE[2], (0, 0)]),
    "star": np.array([_STAR[0], _STAR[2], _STAR[5], _STAR[8], (0, 0)]),
    "cross": np.array([(0, -1), (1, 0), (0, 1), (-1, 0), (0, 0)], float),
}

COLORS = np.array([(215, 60, 60), (60, 190, 70), (60, 90, 215), (220, 200, 60)], np.float32)  # red, green, blue, yellow
CLASS_COLORS = {"disc": (0, 1), "square": (0, 2), "triangle": (1, 2), "star": (1, 3), "cross": (2, 3)}  # indices in COLORS


class ShapeObject(NamedTuple):
    """One shape of an image."""

    class_index: int
    radius: float  # as a fraction of the shorter side of the image
    is_main: bool

    @property
    def name(self) -> str:
        """The class name."""
        return CLASSES[self.class_index]


class Shapes(DataSet):
    """`length` images of `size` (height, width). Each is a function of (seed, split, index).

    An image has one large main object, which gives label and keypoints, and smaller ones in front
    of it and behind it. Colors and textures do not determine the class of a pixel: every color
    occurs in several classes.
    """

    reads_files = False
    provides: ClassVar[frozenset[str]] = frozenset({"image", "label", "mask", "keypoints"})
    labels = Labels(
        classes=CLASSES,
        mask_classes=("background", *CLASSES),
        keypoints=KEYPOINTS,
        skeleton=((0, 4), (1, 4), (2, 4), (3, 4)),
        flip_pairs=((1, 3),),
        sigmas=(0.05,) * len(KEYPOINTS),
    )

    def __init__(
        self,
        split: str,
        *,
        root: str | None = None,
        size: tuple[int, int] = (64, 64),
        length: dict[str, int] | None = None,
        seed: int = 0,
    ):
        """`root` is not used; every data set accepts it. `length`: number of images of each split.

        Raises InputError for an unknown split, or if a side of `size` is not 64 to 224 pixels.
        """
        length = length or {"train": 4000, "val": 200, "test": 200}
        if split not in length:
            raise InputError(f"Data set 'shapes' has no split '{split}'. Choices: {', '.join(length)}.")
        if not all(64 <= side <= 224 for side in size):
            raise InputError(f"Shapes are rendered at 64 to 224 pixels per side; dataset.size is {size[0]}x{size[1]}.")
        self.size, self.length = (int(size[0]), int(size[1])), length[split]
        self.key = (seed, zlib.crc32(split.encode()))

    def __len__(self) -> int:
        """Number of images in this split."""
        return self.length

    def load(self, index: int) -> RawSample:
        """Returns image (H, W, 3), label, mask (H, W), keypoints (K, 3), box, area, image_id."""
        rng = np.random.default_rng((*self.key, index))
        color, other = rng.uniform(40, 215, (2, 3))
        image = self._texture(rng, color, other, background=True)
        mask, owner = (
            np.zeros(self.size, np.uint8),
            np.zeros(self.size, np.uint8),
        )  # owner: number of the object at a pixel, from 1
        for number, shape in enumerate(_draw_objects(rng), start=1):
            matrix, center = self._draw_position(rng, shape)
            outline = OUTLINES[shape.name] @ matrix + center
            inside = np.zeros(self.size, np.uint8)
            cv2.fillPoly(inside, [np.round(outline * 16).astype(np.int32)], 1, shift=4)
            inside = inside.astype(bool)
            image[inside] = self._texture(rng, *COLORS[list(CLASS_COLORS[shape.name])])[inside]
            mask[inside], owner[inside] = shape.class_index + 1, number
            if shape.is_main:
                label, main_outline, main_number = shape.class_index, outline, number
                landmarks = LANDMARKS[shape.name] @ matrix + center
        low, high = main_outline.min(0).clip(0), np.minimum(main_outline.max(0), np.array(self.size[::-1]) - 1)
        return {
            "image": image,
            "label": label,
            "mask": mask,
            "keypoints": _keypoints(landmarks, owner, main_number),
            "box": np.array([*low, *(high - low)], np.float32),
            "area": cv2.contourArea(main_outline.astype(np.float32)),
            "image_id": index,
        }

    def _draw_position(self, rng: np.random.Generator, shape: ShapeObject) -> tuple[np.ndarray, np.ndarray]:
        """Draws a position that keeps the main object inside the image.

        Returns a matrix (2, 2), for row vectors, and a center (2,), from the coordinates of
        OUTLINES to pixels.
        """
        height, width = self.size
        radius = shape.radius * min(self.size)
        margin = radius if shape.is_main else 0.7 * radius
        center = np.array([rng.uniform(margin, width - 1 - margin), rng.uniform(margin, height - 1 - margin)])
        angle = np.deg2rad(rng.uniform(-30, 30))
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * radius
        return rotation * rng.uniform(0.9, 1.1, (1, 2)), center  # stretched a little

    def _texture(self, rng: np.random.Generator, color: np.ndarray, other: np.ndarray, background: bool = False) -> np.ndarray:
        """Returns (H, W, 3) uint8 between two colors, each changed a little, with noise.

        The pattern of an object is stripes or small clouds, that of a background large clouds.
        """
        height, width = self.size
        color, other = (np.asarray(one, np.float32) + rng.uniform(-30, 30, 3) for one in (color, other))
        if not background and rng.random() < 0.5:  # stripes of any direction
            angle, period = rng.uniform(0, np.pi), rng.uniform(4, 12)
            x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
            blend = 0.5 + 0.5 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period) + rng.uniform(0, 6.3))
        else:
            cells = (2, 5) if background else (7, 14)
            coarse = rng.random((rng.integers(*cells), rng.integers(*cells)), np.float32)
            blend = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        image = color + blend.astype(np.float32)[..., None] * (other - color).astype(np.float32)
        image = image + rng.uniform(4, 16) * rng.standard_normal((height, width, 1), np.float32)
        return image.clip(0, 255).astype(np.uint8)


def _draw_objects(rng: np.random.Generator) -> list[ShapeObject]:
    """Draws the objects of an image from back to front.

    The last one may cover a part of the main one.
    """
    main = int(rng.integers(len(CLASSES)))
    others = [
        ShapeObject(int(rng.integers(len(CLASSES))), rng.uniform(0.17, 0.24), is_main=False) for _ in range(rng.integers(1, 3))
    ]
    return [*others[1:], ShapeObject(main, rng.uniform(0.3, 0.42), is_main=True), *others[:1]]


def _keypoints(landmarks: np.ndarray, owner: np.ndarray, number: int) -> np.ndarray:
    """Returns keypoints (K, 3).

    Landmarks (K, 2) of object `number` are occluded (visibility 1) if a later object covers them.
    """
    height, width = owner.shape
    columns = landmarks.astype(np.float32)[:, 0].round().astype(int).clip(0, width - 1)
    rows = landmarks.astype(np.float32)[:, 1].round().astype(int).clip(0, height - 1)
    occluded = owner[rows, columns] > number
    return np.concatenate([landmarks, np.where(occluded, 1, 2)[:, None]], axis=1).astype(np.float32)
