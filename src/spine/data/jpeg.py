"""Reads the size of a JPEG file from its header, and decodes it at a reduced scale."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

SCALES = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
NOT_FRAMES = (0xC4, 0xC8, 0xCC)  # markers among those of frames that begin other segments


class JpegHeader(NamedTuple):
    """What the header of a JPEG file states."""

    height: int  # of the stored pixels
    width: int
    has_exif: bool  # whether there is EXIF data, which may turn the image


def read_jpeg_header(data: np.ndarray) -> JpegHeader | None:
    """Returns the header of a file's bytes (N,) uint8, or None if it is not a JPEG file with a readable header."""
    content = data.data  # its elements are Python's integers, several times faster than NumPy's
    if content[:2] != b"\xff\xd8":
        return None
    start, has_exif = 2, False
    while start + 9 <= len(content) and content[start] == 0xFF:
        marker = content[start + 1]
        if marker == 0xFF:  # a fill byte
            start += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in NOT_FRAMES:
            height, width = (content[at] << 8 | content[at + 1] for at in (start + 5, start + 7))
            return JpegHeader(height, width, has_exif) if height and width else None
        if marker == 0xDA:  # the pixels, without a frame before them
            return None
        has_exif |= marker == 0xE1 and content[start + 4 : start + 8] == b"Exif"
        start += 2 + (content[start + 2] << 8 | content[start + 3])
    return None


def decode_reduced(data: np.ndarray, scale: int) -> np.ndarray | None:
    """Returns the stored pixels of a JPEG file (h, w, 3) uint8 RGB at 1 / `scale` of its size, rounded up. None if it is broken.

    `scale`: 2, 4 or 8. The decoder leaves out the high frequencies of each block of 8x8 pixels, which takes a part of the time.
    """
    image = cv2.imdecode(data, SCALES[scale] | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
