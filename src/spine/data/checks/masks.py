"""Checks of masks: what the stored values that have no class most likely mean, and masks without a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spine.data.image_files import format_names
from spine.interfaces import IGNORE_INDEX


def is_empty(mask: np.ndarray) -> bool:
    """Whether no pixel of a mask (H, W) is of a class above 0, or of a mask (H, W, classes) of any class."""
    if mask.ndim == 3:
        return not (mask == 1).any()
    return not ((mask > 0) & (mask != IGNORE_INDEX)).any()


def count_pixels(mask: np.ndarray, classes: int) -> np.ndarray:
    """Returns the number of pixels of each class (classes,) in a mask (H, W) or (H, W, classes)."""
    if mask.ndim == 3:
        return (mask == 1).sum((0, 1))
    return np.bincount(mask.ravel(), minlength=IGNORE_INDEX + 1)[:classes]


def likely_cause(stored: Sequence[int], classes: int) -> tuple[str, str]:
    """Returns what masks that store these values most likely are, and what to do.

    `stored`: all values of the masks that have values without a class. `classes`: their number.
    """
    values = sorted(set(stored))
    inner = [value for value in values if value != IGNORE_INDEX]
    highest = max(inner, default=0)
    if values in ([0, IGNORE_INDEX], [IGNORE_INDEX]) and classes == 2:
        return "0 and 255 for two classes", 'Set "dataset.label_map={0: 0, 255: 1}".'
    if IGNORE_INDEX in values and highest < classes:
        return "255 for unlabeled pixels", "Set dataset.ignore_index=255."
    ignored = " and dataset.ignore_index=255" if IGNORE_INDEX in values else ""
    if highest == classes and 0 in values:
        return "1-based: 0 for unlabeled pixels, 1 for the first class", f"Set dataset.reduce_zero_label=true{ignored}."
    if highest == classes:
        table = ", ".join(f"{i + 1}: {i}" for i in range(classes)) if classes <= 8 else "1: 0, 2: 1, ..."
        return "1-based: 1 for the first class", f'Set "dataset.label_map={{{table}}}"{ignored}.'
    if 0 in values and highest < classes:
        return "0-based: 0 for the first class", "Leave out dataset.reduce_zero_label, or correct dataset.label_map."
    return (
        f"{len(inner)} values, {format_names(inner, 12)}",
        "List every class in dataset.classes, or map the values with dataset.label_map (null: ignored).",
    )
