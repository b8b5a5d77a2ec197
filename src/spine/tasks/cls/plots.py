"""Figures of image classification."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from spine.reporting.figures import GROUND_TRUTH_COLOR, MAX_IMAGES, MAX_LABELS, PREDICTION_COLOR, grid
from spine.tasks.cls.metrics import BINS, Reliability, expected_calibration_error

MAX_CLASSES_WITH_NUMBERS = 12  # with more classes, the cells of the confusion matrix hold no numbers


def classification(images: np.ndarray, truth: list[int], prediction: list[int], classes: tuple[str, ...]) -> Figure:
    """Draws images (B, H, W, 3) with the predicted class.

    If the prediction is wrong, the ground truth is shown too.
    """
    rows, columns = (2, MAX_IMAGES) if len(images) > MAX_IMAGES else (1, len(images))
    figure, axes = grid(rows, columns, images.shape[1] / images.shape[2] + 0.2)
    for axis, image, true, predicted in zip(axes.flat, images, truth, prediction, strict=False):
        axis.imshow(image)
        correct = true == predicted
        title = classes[predicted] if correct else f"{classes[predicted]}\n(ground truth: {classes[true]})"
        axis.set_title(title, color=GROUND_TRUTH_COLOR if correct else PREDICTION_COLOR, fontsize=8)
    return figure


def confusion(matrix: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Draws a confusion matrix (classes, classes) with the ground truth in rows.

    Each row is normalized to a sum of 1.
    """
    side = 3.0 + 0.3 * min(len(classes), MAX_LABELS)
    figure = Figure(figsize=(side + 0.8, side), dpi=100, layout="constrained")
    axis = figure.subplots()
    fractions = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axis.imshow(fractions, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, shrink=0.7, label="fraction of the ground truth class")
    axis.set(xlabel="prediction", ylabel="ground truth")
    if len(classes) <= MAX_LABELS:
        axis.set_xticks(range(len(classes)), classes, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(len(classes)), classes, fontsize=8)
    if len(classes) <= MAX_CLASSES_WITH_NUMBERS:
        for (row, column), fraction in np.ndenumerate(fractions):
            if fraction >= 0.005:
                color = "white" if fraction > 0.5 else "black"
                axis.text(column, row, f"{fraction:.2f}", ha="center", va="center", fontsize=7, color=color)
    return figure


def reliability(sums: Reliability) -> Figure:
    """Draws reliability diagrams before and after temperature scaling: the accuracy in each bin of confidence.

    The fraction of the samples in each bin is below.
    """
    figure = Figure(figsize=(8.4, 4.6), dpi=100, layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    titles = ("before temperature scaling", f"after (temperature {float(sums.temperature):.2f})")
    for column, title, bins in zip(axes.T, titles, (sums.unscaled, sums.scaled), strict=True):
        samples, confidence, hits = bins.double().cpu().numpy()
        centers, filled = (np.arange(BINS) + 0.5) / BINS, samples > 0
        count = np.maximum(samples, 1)
        column[0].bar(centers[filled], (hits / count)[filled], 0.9 / BINS, color="#4c78a8", label="accuracy")
        column[0].plot((confidence / count)[filled], (confidence / count)[filled], "k_", markersize=9, label="mean confidence")
        column[0].plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle="--")
        column[0].set_title(f"{title}\nECE {expected_calibration_error(bins):.4f}", fontsize=10)
        column[1].bar(centers, samples / max(samples.sum(), 1), 0.9 / BINS, color="gray")
        column[1].set(xlabel="confidence", xlim=(0, 1))
    axes[0, 0].set(ylabel="accuracy", ylim=(0, 1))
    axes[0, 0].legend(fontsize=8, frameon=False, loc="upper left")
    axes[1, 0].set(ylabel="samples")
    return figure
