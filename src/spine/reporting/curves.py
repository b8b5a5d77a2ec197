"""Training curves."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

NOT_DRAWN = ("epoch", "step", "train/images_per_s", "train/data_wait")
LOGGED_PER_STEP = ("train/loss_step", "train/lr", "train/grad_norm")  # the other metrics are logged once per epoch

Points = Sequence[tuple[float, float]]  # (epoch, value)


def curves(history: Mapping[str, Points]) -> Figure:
    """Draws one panel for each metric and one line for each split.

    The keys of `history` are <split>/<metric>.
    """
    panels: dict[str, dict[str, Points]] = {}
    for name, points in history.items():
        split, _, metric = name.partition("/")
        panels.setdefault(metric or split, {})[split] = points
    columns = min(3, max(1, len(panels)))
    rows = -(-len(panels) // columns) or 1
    figure = Figure(figsize=(4.2 * columns, 2.8 * rows), dpi=100, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    # the loss first, then metrics of evaluation, then metrics of training only
    ordered = sorted(panels.items(), key=lambda panel: (panel[0] != "loss", panel[1].keys() == {"train"}))
    for (metric, lines), axis in zip(ordered, axes, strict=False):  # panels first, so that zip does not consume an extra axis
        for split, points in lines.items():
            x, y = zip(*points, strict=True)
            axis.plot(x, y, marker="." if len(x) < 40 else None, label=split)
        axis.set(title=metric, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, frameon=False)
    for axis in list(axes):
        axis.set_visible(False)
    return figure


def draw_curves(folder: Path) -> None:
    """Draws curves.png from metrics.csv in a run folder.

    The x axis is the number of finished epochs.
    """
    path = folder / "metrics.csv"
    if path.is_file() and (history := _read_history(path)):
        curves(history).savefig(folder / "curves.png")


def _read_history(path: Path) -> dict[str, Points]:
    """Reads the points of each metric from metrics.csv, in the order of the epochs."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("epoch")]
    epochs = max((float(row["epoch"]) for row in rows), default=0.0) + 1
    steps = max((float(row["step"]) for row in rows), default=0.0) + 1
    history: dict[str, dict[float, float]] = {}
    for row in rows:
        for name, value in row.items():
            if value and name not in NOT_DRAWN and name.count("/") < 2:
                x = (float(row["step"]) + 1) * epochs / steps if name in LOGGED_PER_STEP else float(row["epoch"]) + 1
                history.setdefault(name, {})[x] = float(value)
    return {name: sorted(points.items()) for name, points in history.items()}
