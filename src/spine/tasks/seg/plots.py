"""Figures of semantic segmentation."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from spine.interfaces import IGNORE_INDEX, Palette
from spine.reporting.figures import MAX_IMAGES, MAX_LABELS, grid, palette


def segmentation(
    images: np.ndarray, truth: np.ndarray, prediction: np.ndarray, classes: tuple[str, ...], colors_of_data: Palette = ()
) -> Figure:
    """Draws images (B, H, W, 3), ground truth masks and predicted masks (B, H, W).

    Ignored pixels are white in both masks. `colors_of_data`: see `spine.reporting.figures.palette`.
    """
    count, colors = min(MAX_IMAGES, len(images)), palette(len(classes), colors_of_data)
    legend_lines = 1 + len(classes) // 8
    figure, axes = grid(3, count, images.shape[1] / images.shape[2], legend=0.25 * legend_lines)
    prediction = np.where(truth == IGNORE_INDEX, IGNORE_INDEX, prediction)
    rows = {"image": images, "ground truth": colors[truth[:count]], "prediction": colors[prediction[:count]]}
    for row, (name, row_images) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(name)
        for axis, image in zip(row, row_images, strict=False):
            axis.imshow(image)
    if len(classes) <= MAX_LABELS:
        handles = [Patch(color=tuple(colors[i]), label=name) for i, name in enumerate(classes)]
        columns = min(8, len(classes), 2 * count)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    return figure
