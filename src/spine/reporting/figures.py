"""Shared parts of figures: fonts, colors and grids of images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from spine.interfaces import IGNORE_INDEX, Palette

MAX_IMAGES = 6  # in one row of a figure
MAX_LABELS = 30  # with more classes, their names are left out
MAX_CLASSES_WITH_NUMBERS = 12  # with more classes, the cells of the confusion matrix hold no numbers
GROUND_TRUTH_COLOR, PREDICTION_COLOR = "#2ca02c", "#d62728"
FALLBACK_FONTS = (  # for characters that matplotlib's default font lacks, such as Chinese, Japanese and Korean class names
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Droid Sans Fallback", "IPAGothic", "IPAexGothic", "TakaoGothic", "NanumGothic", "Microsoft YaHei", "SimHei", "Yu Gothic",
    "MS Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS", "Unifont",
)  # fmt: skip


def use_fallback_fonts() -> None:
    """Adds the installed fonts of FALLBACK_FONTS after matplotlib's default font.

    Characters that no font has are drawn as boxes. Matplotlib would warn about each of them at each
    drawing; these warnings are hidden.
    """
    installed = set(font_manager.get_font_names())
    family = list(matplotlib.rcParams["font.family"])
    matplotlib.rcParams["font.family"] = family + [font for font in FALLBACK_FONTS if font in installed and font not in family]
    warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)


use_fallback_fonts()


def palette(count: int, given: Palette = (), background: bool = True) -> np.ndarray:
    """Returns colors (256, 3) in 0..1 for the values of a mask.

    The first `count` colors are those of the data set, `given` in 0..255, or distinct ones, of which
    the first is dark if it is the `background`. Ignored pixels are white; all other values are black.
    """
    colors = np.zeros((256, 3))
    if given:
        colors[:count], colors[IGNORE_INDEX] = np.array(given) / 255, 1.0
        return colors
    hues = np.arange(count) * 0.61803398875 % 1.0  # golden ratio: hues of consecutive classes differ strongly
    colors[:count] = hsv_to_rgb(np.stack([hues, np.where(np.arange(count) % 2, 0.55, 0.85), np.full(count, 0.9)], 1))
    if background:
        colors[0] = (0.2, 0.2, 0.25)
    colors[IGNORE_INDEX] = 1.0
    return colors


def grid(rows: int, columns: int, aspect: float = 1.0, legend: float = 0.0) -> tuple[Figure, np.ndarray]:
    """Creates a figure with `rows` x `columns` axes without ticks.

    `aspect`: height / width. `legend`: inches below the axes.
    """
    side = 2.0
    figure = Figure(figsize=(side * columns, side * aspect * rows + 0.35 + legend), dpi=100, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        for border in axis.spines.values():
            border.set_visible(False)
    return figure, axes


def image_rows(rows: Mapping[str, Sequence[np.ndarray] | np.ndarray | str]) -> Figure:
    """Draws one labeled row of images (H, W, 3) for each key. Text may take the place of the images of a row."""
    first = next(images for images in rows.values() if not isinstance(images, str))
    count = min(MAX_IMAGES, len(first))
    figure, axes = grid(len(rows), count, first[0].shape[0] / first[0].shape[1])
    for row, (name, images) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(name)
        if isinstance(images, str):
            text = row[0].text(0.05, 0.5, images, transform=row[0].transAxes, va="center")
            text.set_in_layout(False)  # it covers the columns beside it
            for axis in row[1:]:
                axis.set_axis_off()
            continue
        for axis, image in zip(row, images, strict=False):
            axis.imshow(image)
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
