"""Figures of classification."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from spine.reporting.figures import MAX_IMAGES, MAX_LABELS, PREDICTION_COLOR, TRUTH_COLOR, grid


def classification(images: np.ndarray, truth: list[int], answer: list[int], classes: tuple[str, ...]) -> Figure:
    """Images (B, H, W, 3) titled with the predicted class, and with the true one where it differs."""
    rows, columns = (2, MAX_IMAGES) if len(images) > MAX_IMAGES else (1, len(images))
    figure, axes = grid(rows, columns, images.shape[1] / images.shape[2] + 0.2)
    for axis, image, true, found in zip(axes.flat, images, truth, answer, strict=False):
        axis.imshow(image)
        right = true == found
        title = classes[found] if right else f"{classes[found]}\n(is {classes[true]})"
        axis.set_title(title, color=TRUTH_COLOR if right else PREDICTION_COLOR, fontsize=8)
    return figure


def confusion(matrix: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """The share of each true class (rows) that was given each answer (columns)."""
    side = 3.0 + 0.3 * min(len(classes), MAX_LABELS)
    figure = Figure(figsize=(side + 0.8, side), dpi=100, layout="constrained")
    axis = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, shrink=0.7, label="share of the true class")
    axis.set(xlabel="predicted", ylabel="true")
    if len(classes) <= MAX_LABELS:
        axis.set_xticks(range(len(classes)), classes, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(len(classes)), classes, fontsize=8)
    if len(classes) <= 12:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                color = "white" if share > 0.5 else "black"
                axis.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=7, color=color)
    return figure
