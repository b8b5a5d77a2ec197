"""Resizing of images and masks."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from spine.errors import InputError

Size = tuple[int, int]  # height, width
FILTERS = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

LINEAR = "linear"  # OpenCV's


def resize(image: np.ndarray, size: Size, interpolation: str | None = None) -> np.ndarray:
    """Resizes (h, w[, C]) uint8 to `size` (height, width), without aliasing except with "linear".

    `interpolation`: "area", "bilinear", "bicubic" and "lanczos" are Pillow's filters, whose support
    grows when the image shrinks; "nearest" is for masks. "linear" is OpenCV's bilinear filter, which
    aliases when the image shrinks to less than half; mmcv and the authors of most segmentation
    networks use it. None averages an axis that shrinks over areas and interpolates an axis that grows
    linearly.
    """
    if image.shape[:2] == tuple(size):
        return image
    if interpolation in FILTERS:
        return np.asarray(Image.fromarray(image).resize((size[1], size[0]), FILTERS[interpolation]))
    if interpolation == LINEAR:
        return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    if interpolation == "nearest":
        resized = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
        return resized.reshape(*size, *image.shape[2:])  # OpenCV leaves out a single channel
    smaller = min(image.shape[0], size[0]), min(image.shape[1], size[1])
    if smaller != image.shape[:2]:  # OpenCV averages areas only if no axis grows
        image = cv2.resize(image, (smaller[1], smaller[0]), interpolation=cv2.INTER_AREA)
    return image if smaller == tuple(size) else cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def resize_fast(image: np.ndarray, size: Size) -> np.ndarray:
    """Resizes (h, w, 3) uint8 with the bilinear filter of `resize`, several times faster: its values differ by at most 1."""
    if image.shape[:2] == tuple(size):
        return image
    if image.shape[0] <= size[0] and image.shape[1] <= size[1]:  # without antialiasing, OpenCV is the fastest
        return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    # PyTorch recognizes channels_last by the strides, that of the batch included: other orders are converted, which takes longer
    pixels = torch.from_numpy(np.ascontiguousarray(image))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def check_interpolation(name: str | None) -> str | None:
    """Returns the name of a filter, None for "auto". Raises InputError if the name is unknown."""
    if name in (None, "auto"):
        return None
    if name not in (*FILTERS, LINEAR):
        raise InputError(f"interpolation is '{name}'; choices: auto, {', '.join(FILTERS)}, {LINEAR}.")
    return name
