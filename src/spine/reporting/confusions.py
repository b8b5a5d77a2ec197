"""The confusion matrix of a run as a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def confusion_file(folder: Path, split: str) -> Path:
    """Returns the path of the confusion matrix of a split, in a run folder."""
    return folder / f"{split}_confusion.csv"


def confusion_rows(counts: np.ndarray, classes: Sequence[str]) -> list[dict[str, object]]:
    """Returns the counts of a confusion matrix (classes, classes) that are not 0, and its diagonal, which names all classes."""
    kept = counts != 0
    np.fill_diagonal(kept, True)
    return [
        {"truth": classes[truth], "prediction": classes[said], "count": int(counts[truth, said])}
        for truth, said in np.argwhere(kept).tolist()
    ]
