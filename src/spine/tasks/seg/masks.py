"""Description of masks in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spine.interfaces import IGNORE_INDEX


def describe_mask(mask: np.ndarray, classes: Sequence[str], count: int = 3) -> str:
    """Returns the `count` largest classes of a mask (H, W) with their shares of the labeled pixels."""
    pixels = np.bincount(mask[mask != IGNORE_INDEX].ravel(), minlength=len(classes))
    largest = [i for i in np.argsort(-pixels, kind="stable")[:count] if pixels[i]]
    return ", ".join(f"{classes[i]} {pixels[i] / pixels.sum():.0%}" for i in largest)
