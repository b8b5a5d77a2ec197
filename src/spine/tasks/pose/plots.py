"""Figures of keypoint detection."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from spine.reporting.figures import GROUND_TRUTH_COLOR, MAX_IMAGES, PREDICTION_COLOR, grid


def keypoints(
    images: np.ndarray, truth: np.ndarray, prediction: np.ndarray, heatmaps: np.ndarray, skeleton: tuple[tuple[int, int], ...]
) -> Figure:
    """Draws images (B, H, W, 3) with keypoints (B, K, 3), and heatmaps (B, h, w) below them.

    Shows ground truth and predicted keypoints. `heatmaps`: the maximum over all keypoints.
    `skeleton`: pairs of keypoint indices, connected by lines in the prediction.
    """
    count = min(MAX_IMAGES, len(images))
    figure, axes = grid(2, count, images.shape[1] / images.shape[2], legend=0.25)
    height, width = images.shape[1:3]
    axes[0, 0].set_ylabel("keypoints")
    axes[1, 0].set_ylabel("heatmaps")
    for i in range(count):
        top, bottom, labeled, predicted = axes[0, i], axes[1, i], truth[i, truth[i, :, 2] > 0], prediction[i]
        top.imshow(images[i])
        for a, b in skeleton:
            top.plot(predicted[[a, b], 0], predicted[[a, b], 1], color=PREDICTION_COLOR, linewidth=1, alpha=0.6)
        top.scatter(labeled[:, 0], labeled[:, 1], s=22, facecolors="none", edgecolors=GROUND_TRUTH_COLOR, label="ground truth")
        top.scatter(predicted[:, 0], predicted[:, 1], s=10, color=PREDICTION_COLOR, marker="x", linewidths=1, label="prediction")
        top.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        bottom.imshow(heatmaps[i], vmin=0, vmax=1, cmap="inferno")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure
