"""Figures of keypoints."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from spine.reporting.figures import MAX_IMAGES, PREDICTION_COLOR, TRUTH_COLOR, grid


def keypoints(
    images: np.ndarray, truth: np.ndarray, found: np.ndarray, heat: np.ndarray, skeleton: tuple[tuple[int, int], ...]
) -> Figure:
    """Images (B, H, W, 3) with true (B, K, 3) and found (B, K, 3) keypoints; below, the highest of the heatmaps (B, h, w)."""
    count = min(MAX_IMAGES, len(images))
    figure, axes = grid(2, count, images.shape[1] / images.shape[2], legend=0.25)
    height, width = images.shape[1:3]
    axes[0, 0].set_ylabel("keypoints")
    axes[1, 0].set_ylabel("heatmaps")
    for i in range(count):
        top, bottom = axes[0, i], axes[1, i]
        top.imshow(images[i])
        seen = truth[i, :, 2] > 0
        for a, b in skeleton:
            top.plot(found[i, [a, b], 0], found[i, [a, b], 1], color=PREDICTION_COLOR, linewidth=1, alpha=0.6)
        top.scatter(truth[i, seen, 0], truth[i, seen, 1], s=22, facecolors="none", edgecolors=TRUTH_COLOR, label="true")
        top.scatter(found[i, :, 0], found[i, :, 1], s=10, color=PREDICTION_COLOR, marker="x", linewidths=1, label="found")
        top.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        bottom.imshow(heat[i], vmin=0, vmax=1, cmap="inferno")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure
