"""Figures of image classification."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from spine.reporting.figures import GROUND_TRUTH_COLOR, MAX_IMAGES, PREDICTION_COLOR, grid
from spine.tasks.cls.metrics import BINS, Reliability, expected_calibration_error
from spine.tasks.samples import SampleView


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


def several_classes(images: np.ndarray, views: Sequence[SampleView], right: Sequence[bool]) -> Figure:
    """Draws images (B, H, W, 3) with their predicted classes; with the ground truth too where one of them is wrong."""
    rows, columns = (2, MAX_IMAGES) if len(images) > MAX_IMAGES else (1, len(images))
    figure, axes = grid(rows, columns, images.shape[1] / images.shape[2] + 0.2)
    for axis, image, view, correct in zip(axes.flat, images, views, right, strict=False):
        axis.imshow(image)
        lines = [view.prediction or "none", *([] if correct else [f"(ground truth: {view.truth or 'none'})"])]
        color = GROUND_TRUTH_COLOR if correct else PREDICTION_COLOR
        axis.set_title("\n".join(textwrap.fill(line, 32) for line in lines), color=color, fontsize=7)
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
