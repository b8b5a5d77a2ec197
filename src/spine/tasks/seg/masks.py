"""Predicted and ground truth masks, for figures and loggers.

They are class indices (H, W), or (classes, H, W) of 0 and 1 if classes may overlap; 255 is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from spine.interfaces import IGNORE_INDEX


def describe_mask(mask: np.ndarray, classes: Sequence[str], count: int = 3) -> str:
    """Returns the `count` largest classes of a mask with their shares of the labeled pixels."""
    labeled = mask != IGNORE_INDEX
    if mask.ndim == 3:
        pixels, total = (mask == 1).sum((1, 2)), labeled.sum((1, 2))
    else:
        pixels = np.bincount(mask[labeled].ravel(), minlength=len(classes))
        total = np.full(len(classes), labeled.sum())
    largest = [i for i in np.argsort(-pixels, kind="stable")[:count] if pixels[i]]
    return ", ".join(f"{classes[i]} {pixels[i] / total[i]:.0%}" for i in largest)


def resize_mask(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Returns a mask at `size` (height, width), uint8: each pixel has the class of the nearest one."""
    if mask.ndim == 3:
        return np.stack([resize_mask(layer, size) for layer in mask])
    return cv2.resize(mask.astype(np.uint8), (int(size[1]), int(size[0])), interpolation=cv2.INTER_NEAREST_EXACT)


def layers(name: str, mask: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the layers (H, W) that loggers show of a mask: one, or one for each class, in which its pixels have its index and
    all others are ignored.
    """
    if mask.ndim == 2:
        return {name: mask}
    return {
        f"{name} {label}": np.where(layer == 1, index, IGNORE_INDEX).astype(np.uint8)
        for index, (label, layer) in enumerate(zip(classes, mask, strict=True))
    }
