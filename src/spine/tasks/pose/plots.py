"""Figures of keypoint detection."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from spine.reporting.figures import GROUND_TRUTH_COLOR, MAX_IMAGES, grid

CONFIDENCE = "plasma"  # color map of scores 0..1
FAINTEST = 0.2  # opacity of a line with score 0
Skeleton = tuple[tuple[int, int], ...]


def keypoints(
    images: np.ndarray, truth: np.ndarray, prediction: np.ndarray, heatmaps: np.ndarray | None, skeleton: Skeleton
) -> Figure:
    """Draws images (B, H, W, 3) with keypoints (B, K, 3), and heatmaps (B, h, w) below them if there are any.

    The color of predicted keypoints and lines is their score, and that of a line the lower score of its ends. Labeled keypoints are
    green circles. `heatmaps`: the maximum over all keypoints. `skeleton`: pairs of keypoint indices, connected by lines.
    """
    count, labeled = min(MAX_IMAGES, len(images)), bool((truth[..., 2] > 0).any())
    figure, axes = grid(1 if heatmaps is None else 2, count, images.shape[1] / images.shape[2], legend=0.25 * labeled)
    axes[0, 0].set_ylabel("keypoints")
    for i in range(count):
        _draw_person(axes[0, i], images[i], truth[i], prediction[i], skeleton)
        if heatmaps is not None:
            axes[1, i].imshow(heatmaps[i], vmin=0, vmax=1, cmap="inferno")
    if heatmaps is not None:
        axes[1, 0].set_ylabel("heatmaps")
    scale = ScalarMappable(Normalize(0, 1), CONFIDENCE)
    figure.colorbar(scale, ax=axes[0].tolist(), label="score", shrink=0.8, aspect=15, pad=0.01)
    if labeled:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", fontsize=8, frameon=False)
    return figure


def _draw_person(axis: Axes, image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, skeleton: Skeleton) -> None:
    """Draws an image (H, W, 3) with labeled and predicted keypoints (K, 3)."""
    height, width = image.shape[:2]
    scores, known, colors = prediction[:, 2].clip(0, 1), truth[truth[:, 2] > 0], colormaps[CONFIDENCE]
    axis.imshow(image)
    if skeleton:
        pairs = np.array(skeleton, int)
        lowest = scores[pairs].min(1)
        lines = LineCollection(
            list(prediction[pairs, :2]), colors=colors(lowest), alpha=FAINTEST + (1 - FAINTEST) * lowest, linewidths=1.5
        )
        axis.add_collection(lines, autolim=False)
    size = 22 if len(truth) <= 40 else 8  # of points; faces have many
    axis.scatter(known[:, 0], known[:, 1], s=size, facecolors="none", edgecolors=GROUND_TRUTH_COLOR, label="ground truth")
    axis.scatter(
        prediction[:, 0],
        prediction[:, 1],
        s=size / 2,
        c=scores,
        cmap=CONFIDENCE,
        vmin=0,
        vmax=1,
        edgecolors="black",
        linewidths=0.3,
    )
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    title = f"mean score {prediction[:, 2].mean():.2f}"
    if len(known):
        distance = np.linalg.norm(prediction[truth[:, 2] > 0, :2] - known[:, :2], axis=1).mean()
        title += f", {distance:.1f} px off"
    axis.set_title(title, fontsize=8)
