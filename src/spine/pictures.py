"""Everything that is drawn: figures of predictions and of training curves. No file is read or written here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from spine.interfaces import IGNORE_INDEX

SHOWN = 6  # images in a picture
TRUE, FOUND = "#2ca02c", "#d62728"
MANY = 30  # labels beyond which they are left out
FALLBACK_FONTS = (  # for characters that matplotlib's own font lacks, such as Chinese, Japanese and Korean class names
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Droid Sans Fallback", "IPAGothic", "IPAexGothic", "TakaoGothic", "NanumGothic", "Microsoft YaHei", "SimHei", "Yu Gothic",
    "MS Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS", "Unifont",
)  # fmt: skip


def use_fallback_fonts() -> None:
    """Adds the installed fonts of FALLBACK_FONTS behind matplotlib's own. Characters that no font has are drawn as boxes, and matplotlib's
    warning for each of them at each drawing is silenced.
    """
    installed = set(font_manager.get_font_names())
    family = list(matplotlib.rcParams["font.family"])
    matplotlib.rcParams["font.family"] = family + [font for font in FALLBACK_FONTS if font in installed and font not in family]
    warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)


use_fallback_fonts()


def palette(count: int) -> np.ndarray:
    """(256, 3) colours in 0..1: `count` that differ, the first one dark, black for the rest and white for ignored pixels."""
    colours = np.zeros((256, 3))
    hues = np.arange(count) * 0.61803398875 % 1.0  # golden ratio: neighbours lie far apart
    colours[:count] = hsv_to_rgb(np.stack([hues, np.where(np.arange(count) % 2, 0.55, 0.85), np.full(count, 0.9)], 1))
    colours[0] = (0.2, 0.2, 0.25)
    colours[IGNORE_INDEX] = 1.0
    return colours


def grid(rows: int, columns: int, aspect: float = 1.0, legend: float = 0.0) -> tuple[Figure, np.ndarray]:
    """A figure of `rows` x `columns` axes without ticks; `aspect` is height over width, `legend` inches below."""
    side = 2.0
    figure = Figure(figsize=(side * columns, side * aspect * rows + 0.35 + legend), dpi=100, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(False)
    return figure, axes


def image_rows(rows: Mapping[str, Sequence[np.ndarray] | np.ndarray]) -> Figure:
    """One named row of images (H, W, 3) a key."""
    first = next(iter(rows.values()))
    count = min(SHOWN, len(first))
    figure, axes = grid(len(rows), count, first[0].shape[0] / first[0].shape[1])
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name)
        for axis, image in zip(line, images, strict=False):
            axis.imshow(image)
    return figure


def segmentation(images: np.ndarray, truth: np.ndarray, answer: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Images (B, H, W, 3), true and predicted masks (B, H, W), with the colours of the classes. Ignored pixels are white in both."""
    count, colours = min(SHOWN, len(images)), palette(len(classes))
    lines = 1 + len(classes) // 8
    figure, axes = grid(3, count, images.shape[1] / images.shape[2], legend=0.25 * lines)
    answer = np.where(truth == IGNORE_INDEX, IGNORE_INDEX, answer)
    for line, name, pictures in zip(
        axes, ("image", "true", "predicted"), (images, colours[truth[:count]], colours[answer[:count]]), strict=True
    ):
        line[0].set_ylabel(name)
        for axis, picture in zip(line, pictures, strict=False):
            axis.imshow(picture)
    if len(classes) <= MANY:
        handles = [Patch(color=tuple(colours[i]), label=name) for i, name in enumerate(classes)]
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=min(8, len(classes), 2 * count),
            fontsize=8,
            frameon=False,
        )
    return figure


def classification(images: np.ndarray, truth: list[int], answer: list[int], classes: tuple[str, ...]) -> Figure:
    """Images (B, H, W, 3) titled with the predicted class, and with the true one where it differs."""
    rows, columns = (2, SHOWN) if len(images) > SHOWN else (1, len(images))
    figure, axes = grid(rows, columns, images.shape[1] / images.shape[2] + 0.2)
    for axis, image, true, found in zip(axes.flat, images, truth, answer, strict=False):
        axis.imshow(image)
        right = true == found
        title = classes[found] if right else f"{classes[found]}\n(is {classes[true]})"
        axis.set_title(title, color=TRUE if right else FOUND, fontsize=8)
    return figure


def confusion(matrix: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """The share of each true class (rows) that was given each answer (columns)."""
    side = 3.0 + 0.3 * min(len(classes), MANY)
    figure = Figure(figsize=(side + 0.8, side), dpi=100, layout="constrained")
    axis = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, shrink=0.7, label="share of the true class")
    axis.set(xlabel="predicted", ylabel="true")
    if len(classes) <= MANY:
        axis.set_xticks(range(len(classes)), classes, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(len(classes)), classes, fontsize=8)
    if len(classes) <= 12:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "white" if share > 0.5 else "black"
                axis.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=7, color=colour)
    return figure


def keypoints(
    images: np.ndarray, truth: np.ndarray, found: np.ndarray, heat: np.ndarray, skeleton: tuple[tuple[int, int], ...]
) -> Figure:
    """Images (B, H, W, 3) with true (B, K, 3) and found (B, K, 3) keypoints; below, the highest of the heatmaps (B, h, w)."""
    count = min(SHOWN, len(images))
    figure, axes = grid(2, count, images.shape[1] / images.shape[2], legend=0.25)
    height, width = images.shape[1:3]
    axes[0, 0].set_ylabel("keypoints")
    axes[1, 0].set_ylabel("heatmaps")
    for i in range(count):
        top, bottom = axes[0, i], axes[1, i]
        top.imshow(images[i])
        seen = truth[i, :, 2] > 0
        for a, b in skeleton:
            top.plot(found[i, [a, b], 0], found[i, [a, b], 1], color=FOUND, linewidth=1, alpha=0.6)
        top.scatter(truth[i, seen, 0], truth[i, seen, 1], s=22, facecolors="none", edgecolors=TRUE, label="true")
        top.scatter(found[i, :, 0], found[i, :, 1], s=10, color=FOUND, marker="x", linewidths=1, label="found")
        top.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        bottom.imshow(heat[i], vmin=0, vmax=1, cmap="inferno")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def curves(history: dict[str, list[tuple[float, float]]]) -> Figure:
    """One panel a metric name behind the slash, one line a split before it; points are (epoch, value)."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, points in history.items():
        split, _, metric = name.partition("/")
        panels.setdefault(metric or split, {})[split] = points
    columns = min(3, max(1, len(panels)))
    rows = -(-len(panels) // columns) or 1
    figure = Figure(figsize=(4.2 * columns, 2.8 * rows), dpi=100, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    # loss first, then metrics of evaluation, then what is logged of training alone
    ordered = sorted(panels.items(), key=lambda panel: (panel[0] != "loss", panel[1].keys() == {"train"}))
    for (metric, lines), axis in zip(ordered, axes, strict=False):  # panels first: zip must not eat an axis
        for split, points in lines.items():
            x, y = zip(*points, strict=True)
            axis.plot(x, y, marker="." if len(x) < 40 else None, label=split)
        axis.set(title=metric, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, frameon=False)
    for axis in list(axes):
        axis.set_visible(False)
    return figure


def costs(labels: list[str], axes: dict[str, list[float]], ylabel: str, y: list[float], title: str) -> Figure:
    """One logarithmic panel a cost: a labelled point a network, and the line on which speed is inversely proportional to the cost."""
    figure = Figure(figsize=(6.4 * len(axes), 5.2), dpi=100, layout="constrained")
    for axis, (xlabel, x) in zip(figure.subplots(1, len(axes), sharey=True, squeeze=False)[0], axes.items(), strict=True):
        product = float(np.median(np.multiply(x, y)))
        ends = np.array([min(x), max(x)])
        axis.plot(ends, product / ends, linestyle="--", color="0.6", linewidth=1, label="speed = constant / cost")
        axis.scatter(x, y, s=28, zorder=3)
        axis.set(xscale="log", yscale="log", xlabel=xlabel)
        width, height = (np.log10(max(side) / min(side)) or 1.0 for side in (x, y))
        placed: list[tuple[float, float]] = []
        for i in np.argsort(y)[::-1]:  # a label gives way downwards to those beside it, and a line leads back to its point
            a, b = np.log10(x[i]) + 0.03 * width, np.log10(y[i])
            for other_a, other_b in placed:
                if abs(a - other_a) < 0.2 * width and b > other_b - 0.045 * height:
                    b = other_b - 0.045 * height
            placed.append((a, b))
            line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            axis.annotate(labels[i], (x[i], y[i]), xytext=(10**a, 10**b), va="center", fontsize=8, arrowprops=line)
        axis.margins(x=0.12, y=0.1)
        axis.grid(alpha=0.3, which="both", linewidth=0.5)
        axis.legend(fontsize=8, frameon=False, loc="lower left")
    figure.supylabel(ylabel, fontsize=10)
    figure.suptitle(title, fontsize=9)
    return figure
