"""Figures of semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from spine.interfaces import IGNORE_INDEX, Palette
from spine.reporting.figures import MAX_IMAGES, MAX_LABELS, PREDICTION_COLOR, grid, palette
from spine.tasks.seg.masks import resize_mask
from spine.tasks.seg.metrics import count_confusion, pixel_counts, scores_of_classes

LONGER_SIDE = 480  # pixels of an image in a figure, at most
OPACITY = 0.6  # of masks over images


def segmentation(
    images: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    prediction: Sequence[np.ndarray],
    classes: tuple[str, ...],
    colors_of_data: Palette = (),
) -> Figure:
    """Draws images, both masks over them with a legend, and the errors. The images may have different sizes.

    `images`: (h, w, 3) uint8. `truth`, `prediction`: (H, W), or (classes, H, W) of 0 and 1 if classes
    may overlap, at any other size. Ignored pixels are white. `colors_of_data`: see
    `spine.reporting.figures.palette`. The title of each column is the mIoU of the image.
    """
    count, colors = min(MAX_IMAGES, len(images)), palette(len(classes), colors_of_data, background=truth[0].ndim == 2)
    shown = [_shrink(*each) for each in zip(images, truth, prediction, strict=True)][:count]
    every = [mask for _, *masks in shown for mask in masks]
    occurring = [i for i in range(len(classes)) if any(_shows(mask, i).any() for mask in every)][:MAX_LABELS]
    columns = min(8, 2 * count)
    height, width = shown[0][0].shape[:2]
    figure, axes = grid(4, count, height / width, legend=0.25 * (1 + len(occurring) // columns))
    for axis, name in zip(axes[:, 0], ("image", "ground truth", "prediction", "errors"), strict=True):
        axis.set_ylabel(name)
    for column, (image, true, found), whole in zip(axes.T, shown, zip(truth, prediction, strict=True), strict=False):
        column[0].imshow(image)
        column[1].imshow(_overlay(image, true, colors))
        column[2].imshow(_overlay(image, np.where(true == IGNORE_INDEX, IGNORE_INDEX, found), colors))
        column[3].imshow(_errors(image, true, found))
        column[0].set_title(f"mIoU {_image_iou(*whole, len(classes)):.2f}", fontsize=8)
    handles = [Patch(color=tuple(colors[i]), label=classes[i]) for i in occurring]
    handles.append(Patch(color=PREDICTION_COLOR, label="wrong"))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    return figure


def _shrink(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image and its masks at one size, that of the masks or smaller."""
    height, width = truth.shape[-2:]
    scale = min(1.0, LONGER_SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    resized = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return resized, resize_mask(truth, size), resize_mask(prediction, size)


def _shows(mask: np.ndarray, index: int) -> np.ndarray:
    """Returns where a mask shows a class, (H, W) bool."""
    return mask[index] == 1 if mask.ndim == 3 else mask == index


def _overlay(image: np.ndarray, mask: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Colors of a mask over an image (H, W, 3) uint8, as (H, W, 3) in 0..1.

    Where classes overlap, their colors are averaged; pixels without a class keep those of the image.
    """
    pixels = image / 255
    if mask.ndim == 2:
        return (1 - OPACITY) * pixels + OPACITY * colors[mask]
    present = (mask == 1).astype(np.float64)
    count = present.sum(0)[..., None]
    mean = np.einsum("khw,kc->hwc", present, colors[: len(mask)]) / np.maximum(count, 1)
    shown = np.where(count > 0, (1 - OPACITY) * pixels + OPACITY * mean, pixels)
    shown[(mask == IGNORE_INDEX).all(0)] = 1.0
    return shown


def _errors(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Pixels that are wrong, for any class, in red over a gray image, and ignored pixels in white."""
    gray = image.mean(2, keepdims=True).repeat(3, axis=2) / 255
    shown = 0.35 + 0.5 * gray
    ignored = truth == IGNORE_INDEX
    wrong = ~ignored & (prediction != truth)
    shown[wrong.any(0) if wrong.ndim == 3 else wrong] = to_rgb(PREDICTION_COLOR)
    shown[ignored.all(0) if ignored.ndim == 3 else ignored] = 1.0
    return shown


def _image_iou(truth: np.ndarray, prediction: np.ndarray, count: int) -> float:
    """The mean IoU of the classes that occur in one image. NaN without labeled pixels."""
    return float(scores_of_classes(count_confusion(truth, prediction, count))["IoU"].nanmean())


def class_bars(confusion: Tensor, classes: tuple[str, ...], colors_of_data: Palette = ()) -> Figure:
    """Draws the IoU of each class, the highest first, with the share of its pixels, and the mean.

    `confusion`: see `spine.tasks.seg.metrics`. Absent classes come last, without a bar.
    """
    iou, counts = scores_of_classes(confusion)["IoU"].numpy(), pixel_counts(confusion)
    shares = (counts.truth / counts.labeled.clamp(min=1)).numpy()
    order = np.argsort(-iou, kind="stable")  # NaN last
    colors = palette(len(classes), colors_of_data, background=confusion.ndim == 2)
    figure = Figure(figsize=(7.0, 1.0 + 0.22 * len(classes)), dpi=100, layout="constrained")
    axis = figure.subplots()
    axis.barh(range(len(classes)), np.nan_to_num(iou[order]), color=colors[order], edgecolor="0.6", linewidth=0.5)
    for place, index in enumerate(order):
        value = "absent" if np.isnan(iou[index]) else f"{iou[index]:.3f}"
        label = axis.text(np.nan_to_num(iou[index]) + 0.01, place, f"{value}  ({shares[index]:.1%})", va="center", fontsize=7)
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    mean = np.nanmean(iou) if np.isfinite(iou).any() else np.nan
    axis.axvline(np.nan_to_num(mean), color="0.2", linestyle="--", linewidth=1, zorder=1.5)
    axis.set_title(f"mIoU {mean:.3f} (dashed); share of the labeled pixels in parentheses", fontsize=9)
    axis.set(xlim=(0, 1.18), xlabel="IoU", ylim=(len(classes) - 0.5, -0.5))
    axis.set_yticks(range(len(classes)), [classes[i] for i in order], fontsize=8)
    axis.set_xticks(np.linspace(0, 1, 6))
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return figure
