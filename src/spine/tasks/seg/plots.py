"""Figures of segmentation."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from spine.interfaces import IGNORE_INDEX
from spine.reporting.figures import MAX_IMAGES, MAX_LABELS, grid, palette


def segmentation(images: np.ndarray, truth: np.ndarray, answer: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Images (B, H, W, 3), true and predicted masks (B, H, W), with the colors of the classes. Ignored pixels are white in both."""
    count, colors = min(MAX_IMAGES, len(images)), palette(len(classes))
    lines = 1 + len(classes) // 8
    figure, axes = grid(3, count, images.shape[1] / images.shape[2], legend=0.25 * lines)
    answer = np.where(truth == IGNORE_INDEX, IGNORE_INDEX, answer)
    for line, name, pictures in zip(
        axes, ("image", "true", "predicted"), (images, colors[truth[:count]], colors[answer[:count]]), strict=True
    ):
        line[0].set_ylabel(name)
        for axis, picture in zip(line, pictures, strict=False):
            axis.imshow(picture)
    if len(classes) <= MAX_LABELS:
        handles = [Patch(color=tuple(colors[i]), label=name) for i, name in enumerate(classes)]
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=min(8, len(classes), 2 * count),
            fontsize=8,
            frameon=False,
        )
    return figure
