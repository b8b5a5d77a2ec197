"""The history of a run: the values in its metrics.csv over the epochs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

# These metrics are logged at single steps; the others are logged once per epoch.
LOGGED_PER_STEP = ("train/loss_step", "train/lr", "train/grad_norm", "train/images_per_s", "train/data_wait")

Points = Sequence[tuple[float, float]]  # (number of finished epochs, value)


def read_history(path: Path) -> dict[str, Points]:
    """Returns the points of each metric in a metrics.csv, in the order of the epochs.

    Leaves out metrics of single classes, such as val/IoU/road. Returns an empty dictionary if there
    is no file. Raises ValueError if a cell is not a number.
    """
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("epoch")]
    epochs = max((float(row["epoch"]) for row in rows), default=0.0) + 1
    steps = max((float(row["step"]) for row in rows), default=0.0) + 1
    history: dict[str, dict[float, float]] = {}
    for row in rows:
        for name, value in row.items():
            if value and name not in ("epoch", "step") and name.count("/") < 2:
                x = (float(row["step"]) + 1) * epochs / steps if name in LOGGED_PER_STEP else float(row["epoch"]) + 1
                history.setdefault(name, {})[x] = float(value)
    return {name: sorted(points.items()) for name, points in history.items()}
