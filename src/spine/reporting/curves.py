"""Training curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from spine.reporting.history import Points, read_history

NOT_DRAWN = ("train/images_per_s", "train/data_wait")


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
    history = {name: points for name, points in read_history(folder / "metrics.csv").items() if name not in NOT_DRAWN}
    if history:
        curves(history).savefig(folder / "curves.png")
