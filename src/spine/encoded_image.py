"""An image file in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image file in memory that is not decoded yet. `spine.data.image_files.decode` decodes it."""

    data: np.ndarray  # (N,) uint8: the bytes of the file
    name: str  # its path, for messages
    size: tuple[int, int] | None = None  # (height, width) that annotations in pixels were made for; None if there are none
    upright: bool = True  # whether its EXIF orientation is applied, if `size` is None
