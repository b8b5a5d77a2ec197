"""Masks of class indices, for figures and loggers."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from spine.interfaces import IGNORE_INDEX


def describe_mask(mask: np.ndarray, classes: Sequence[str], count: int = 3) -> str:
    """Returns the `count` largest classes of a mask (H, W) with their shares of the labeled pixels."""
    pixels = np.bincount(mask[mask != IGNORE_INDEX].ravel(), minlength=len(classes))
    largest = [i for i in np.argsort(-pixels, kind="stable")[:count] if pixels[i]]
    return ", ".join(f"{classes[i]} {pixels[i] / pixels.sum():.0%}" for i in largest)


def resize_mask(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Returns a mask (H, W) at `size` (height, width), (h, w) uint8: each pixel has the class of the nearest one."""
    return cv2.resize(mask.astype(np.uint8), (int(size[1]), int(size[0])), interpolation=cv2.INTER_NEAREST_EXACT)
