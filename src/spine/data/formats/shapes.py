"""The embedded data set: textured shapes before textured backgrounds, rendered from the seed. No files; every task runs on it."""

from __future__ import annotations

import zlib
from typing import ClassVar

import cv2
import numpy as np

from spine.errors import InputError
from spine.interfaces import DataSet, Labels

CLASSES = ("disc", "square", "triangle", "star", "cross")
KEYPOINTS = ("top", "right", "bottom", "left", "centre")


def _circle(count: int, radii: tuple[float, ...], start: float = -90.0) -> np.ndarray:
    """`count` corners clockwise from `start` degrees, their radii taken in turn."""
    angles = np.deg2rad(start + np.arange(count) * 360 / count)
    return np.resize(radii, count)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)


_ARM = 0.42  # half the width of the cross's arms
OUTLINES = {  # corners (M, 2) in a frame where the shape spans about -1..1, y down
    "disc": _circle(40, (0.95,)),
    "square": _circle(4, (1.1,), start=-135.0),
    "triangle": _circle(3, (1.15,)),
    "star": _circle(10, (1.15, 0.58)),
    "cross": np.array(
        [(-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
         (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM)], float),
}  # fmt: skip
_STAR, _TRIANGLE = OUTLINES["star"], OUTLINES["triangle"]
LANDMARKS = {  # (K, 2) in the same frame, in the order of KEYPOINTS
    "disc": np.array([(0, -0.95), (0.95, 0), (0, 0.95), (-0.95, 0), (0, 0)]),
    "square": 1.1 * np.sqrt(0.5) * np.array([(0, -1), (1, 0), (0, 1), (-1, 0), (0, 0)]),
    "triangle": np.array([_TRIANGLE[0], _TRIANGLE[1], (_TRIANGLE[1] + _TRIANGLE[2]) / 2, _TRIANGLE[2], (0, 0)]),
    "star": np.array([_STAR[0], _STAR[2], _STAR[5], _STAR[8], (0, 0)]),
    "cross": np.array([(0, -1), (1, 0), (0, 1), (-1, 0), (0, 0)], float),
}

INKS = np.array([(215, 60, 60), (60, 190, 70), (60, 90, 215), (220, 200, 60)], np.float32)  # red, green, blue, yellow
PAIRS = {"disc": (0, 1), "square": (0, 2), "triangle": (1, 2), "star": (1, 3), "cross": (2, 3)}  # a class's two inks


class Shapes(DataSet):
    """`length` pictures of `size` (height, width), each a function of (seed, split, index).

    One large main object, which gives label and keypoints, and smaller ones that it hides or that hide parts of it. Colours and
    textures are drawn without regard to the class, so that a pixel alone says nothing.
    """

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
        """`root` is accepted as for every data set and not read: nothing lies on disk."""
        length = length or {"train": 4000, "val": 200, "test": 200}
        if split not in length:
            raise InputError(f"Data set 'shapes' has no split '{split}'. Choices: {', '.join(length)}.")
        if not all(64 <= side <= 224 for side in size):
            raise InputError(f"Shapes are rendered at 64 to 224 pixels a side; {size[0]}x{size[1]} was asked for.")
        self.size, self.length = (int(size[0]), int(size[1])), length[split]
        self.key = (seed, zlib.crc32(split.encode()))

    def __len__(self) -> int:
        """Number of pictures in this split."""
        return self.length

    def load(self, index: int) -> dict:
        """image (H, W, 3) uint8, label, mask (H, W) uint8, keypoints (K, 3), box, area, image_id."""
        rng = np.random.default_rng((*self.key, index))
        height, width = self.size
        side = min(self.size)
        mask = np.zeros(self.size, np.uint8)
        one, other = rng.uniform(40, 215, (2, 3))
        image = self._texture(rng, one, other, ground=True)
        main = int(rng.integers(len(CLASSES)))
        others = [(int(rng.integers(len(CLASSES))), rng.uniform(0.17, 0.24), False) for _ in range(rng.integers(1, 3))]
        objects = [
            *others[1:],
            (main, rng.uniform(0.3, 0.42), True),
            *others[:1],
        ]  # the last may hide a part of the main one
        owner = np.zeros(self.size, np.uint8)  # number of the object that a pixel shows
        keypoints, outline, number = np.zeros((len(KEYPOINTS), 3), np.float32), np.zeros((0, 2)), 0
        for i, (kind, radius, is_main) in enumerate(objects, start=1):
            name, radius = CLASSES[kind], radius * side
            margin = radius if is_main else 0.7 * radius
            centre = np.array([rng.uniform(margin, width - 1 - margin), rng.uniform(margin, height - 1 - margin)])
            angle = np.deg2rad(rng.uniform(-30, 30))
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * radius
            turn = turn * rng.uniform(0.9, 1.1, (1, 2))  # a little stretched
            corners = OUTLINES[name] @ turn + centre
            inside = np.zeros(self.size, np.uint8)
            cv2.fillPoly(inside, [np.round(corners * 16).astype(np.int32)], 1, shift=4)
            inside = inside.astype(bool)
            image[inside] = self._texture(rng, *INKS[list(PAIRS[name])])[inside]
            mask[inside] = kind + 1
            owner[inside] = i
            if is_main:
                keypoints[:, :2] = LANDMARKS[name] @ turn + centre
                outline, number = corners, i
        columns = keypoints[:, 0].round().astype(int).clip(0, width - 1)
        rows = keypoints[:, 1].round().astype(int).clip(0, height - 1)
        hidden = owner[rows, columns] > number  # a later object lies there
        keypoints[:, 2] = np.where(hidden, 1, 2)
        low, high = outline.min(0).clip(0), np.minimum(outline.max(0), (width - 1, height - 1))
        return {
            "image": image,
            "label": main,
            "mask": mask,
            "keypoints": keypoints,
            "box": np.array([*low, *(high - low)], np.float32),
            "area": cv2.contourArea(outline.astype(np.float32)),
            "image_id": index,
        }

    def _texture(self, rng: np.random.Generator, one: np.ndarray, other: np.ndarray, ground: bool = False) -> np.ndarray:
        """(H, W, 3) uint8 between two colors, each a little off: stripes or small clouds, large clouds for the ground; and noise."""
        height, width = self.size
        one, other = (np.asarray(color, np.float32) + rng.uniform(-30, 30, 3) for color in (one, other))
        if not ground and rng.random() < 0.5:  # stripes of any direction
            angle, period = rng.uniform(0, np.pi), rng.uniform(4, 12)
            x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
            blend = 0.5 + 0.5 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period) + rng.uniform(0, 6.3))
        else:
            cells = (2, 5) if ground else (7, 14)
            coarse = rng.random((rng.integers(*cells), rng.integers(*cells)), np.float32)
            blend = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        picture = one + blend.astype(np.float32)[..., None] * (other - one).astype(np.float32)
        picture = picture + rng.uniform(4, 16) * rng.standard_normal((height, width, 1), np.float32)
        return picture.clip(0, 255).astype(np.uint8)
