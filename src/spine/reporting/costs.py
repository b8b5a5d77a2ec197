"""The table and the figure of what backbones cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from spine.profiling import Cost


def cost_table(costs: Sequence[Cost]) -> Table:
    """What backbones cost, as a Markdown table."""
    table = Table(box=box.MARKDOWN)
    for name in ("backbone", "variant"):
        table.add_column(name)
    for name in ("parameters, M", "multiply-adds, G", "traffic, MB", "inference, images/s", "training, images/s"):
        table.add_column(name, justify="right")
    for cost in costs:
        numbers = (cost.parameters / 1e6, cost.macs / 1e9, cost.traffic / 1e6)
        table.add_row(*cost[:2], *(f"{n:.2f}" for n in numbers[:2]), f"{numbers[2]:.0f}", *(f"{n:.1f}" for n in cost[-2:]))
    return table


def cost_figure(costs: Sequence[Cost], title: str) -> Figure:
    """Speed against multiply-adds and against memory traffic, both logarithmic, with a labeled point for each backbone.

    On the dashed line speed is inversely proportional to the cost.
    """
    axes = {
        "multiply-adds of an image, G": [cost.macs / 1e9 for cost in costs],
        "memory traffic of an image, MB": [cost.traffic / 1e6 for cost in costs],
    }
    labels, y = [cost.backbone for cost in costs], [cost.inference for cost in costs]
    figure = Figure(figsize=(6.4 * len(axes), 5.2), dpi=100, layout="constrained")
    for axis, (xlabel, x) in zip(figure.subplots(1, len(axes), sharey=True, squeeze=False)[0], axes.items(), strict=True):
        product = float(np.median(np.multiply(x, y)))
        ends = np.array([min(x), max(x)])
        axis.plot(ends, product / ends, linestyle="--", color="0.6", linewidth=1, label="speed = constant / cost")
        axis.scatter(x, y, s=28, zorder=3)
        axis.set(xscale="log", yscale="log", xlabel=xlabel)
        width, height = (np.log10(max(side) / min(side)) or 1.0 for side in (x, y))
        placed: list[tuple[float, float]] = []
        for i in np.argsort(y)[::-1]:  # a label gives way downwards to those beside it, and a line leads back to its point
            a, b = np.log10(x[i]) + 0.03 * width, np.log10(y[i])
            for other_a, other_b in placed:
                if abs(a - other_a) < 0.2 * width and b > other_b - 0.045 * height:
                    b = other_b - 0.045 * height
            placed.append((a, b))
            line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            axis.annotate(labels[i], (x[i], y[i]), xytext=(10**a, 10**b), va="center", fontsize=8, arrowprops=line)
        axis.margins(x=0.12, y=0.1)
        axis.grid(alpha=0.3, which="both", linewidth=0.5)
        axis.legend(fontsize=8, frameon=False, loc="lower left")
    figure.supylabel("inference, images per second", fontsize=10)
    figure.suptitle(title, fontsize=9)
    return figure
