"""Table and figure of the cost of backbones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from spine.profiling import Cost


def cost_table(costs: Sequence[Cost]) -> Table:
    """Returns a table in Markdown with one row for each backbone."""
    table = Table(box=box.MARKDOWN)
    for name in ("backbone", "variant"):
        table.add_column(name)
    for name in ("parameters, M", "multiply-adds, G", "traffic, MB", "inference, images/s", "training, images/s"):
        table.add_column(name, justify="right")
    for cost in costs:
        table.add_row(
            cost.backbone,
            cost.variant,
            f"{cost.parameters / 1e6:.2f}",
            f"{cost.macs / 1e9:.2f}",
            f"{cost.traffic / 1e6:.0f}",
            f"{cost.inference:.1f}",
            f"{cost.training:.1f}",
        )
    return table


def cost_figure(costs: Sequence[Cost], title: str) -> Figure:
    """Draws speed against multiply-adds and against memory traffic.

    Both axes are logarithmic, and each backbone is a labeled point. On the dashed line, speed is
    inversely proportional to the cost.
    """
    panels = {
        "multiply-adds per image, G": [cost.macs / 1e9 for cost in costs],
        "memory traffic per image, MB": [cost.traffic / 1e6 for cost in costs],
    }
    labels, y = [cost.backbone for cost in costs], [cost.inference for cost in costs]
    figure = Figure(figsize=(6.4 * len(panels), 5.2), dpi=100, layout="constrained")
    for axis, (xlabel, x) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True):
        product = float(np.median(np.multiply(x, y)))
        ends = np.array([min(x), max(x)])
        axis.plot(ends, product / ends, linestyle="--", color="0.6", linewidth=1, label="speed = constant / cost")
        axis.scatter(x, y, s=28, zorder=3)
        axis.set(xscale="log", yscale="log", xlabel=xlabel)
        _label_points(axis, x, y, labels)
        axis.margins(x=0.12, y=0.1)
        axis.grid(alpha=0.3, which="both", linewidth=0.5)
        axis.legend(fontsize=8, frameon=False, loc="lower left")
    figure.supylabel("inference, images per second", fontsize=10)
    figure.suptitle(title, fontsize=9)
    return figure


def _label_points(axis: Axes, x: Sequence[float], y: Sequence[float], labels: Sequence[str]) -> None:
    """Writes a label to the right of each point.

    Labels move down to avoid overlap, and a line connects them to their points.
    """
    width, height = (np.log10(max(values) / min(values)) or 1.0 for values in (x, y))
    line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
    placed: list[tuple[float, float]] = []
    for i in np.argsort(y)[::-1]:
        a, b = np.log10(x[i]) + 0.03 * width, np.log10(y[i])
        for other_a, other_b in placed:
            if abs(a - other_a) < 0.2 * width and b > other_b - 0.045 * height:
                b = other_b - 0.045 * height
        placed.append((a, b))
        axis.annotate(labels[i], (x[i], y[i]), xytext=(10**a, 10**b), va="center", fontsize=8, arrowprops=line)
