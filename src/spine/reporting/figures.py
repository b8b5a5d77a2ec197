"""Shared parts of figures: fonts, colors and grids of images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from spine.interfaces import IGNORE_INDEX

MAX_IMAGES = 6  # images in a picture


TRUTH_COLOR, PREDICTION_COLOR = "#2ca02c", "#d62728"


MAX_LABELS = 30  # labels beyond which they are left out


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
    """(256, 3) colors in 0..1: `count` that differ, the first one dark, black for the rest and white for ignored pixels."""
    colors = np.zeros((256, 3))
    hues = np.arange(count) * 0.61803398875 % 1.0  # golden ratio: neighbours lie far apart
    colors[:count] = hsv_to_rgb(np.stack([hues, np.where(np.arange(count) % 2, 0.55, 0.85), np.full(count, 0.9)], 1))
    colors[0] = (0.2, 0.2, 0.25)
    colors[IGNORE_INDEX] = 1.0
    return colors


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
    count = min(MAX_IMAGES, len(first))
    figure, axes = grid(len(rows), count, first[0].shape[0] / first[0].shape[1])
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name)
        for axis, image in zip(line, images, strict=False):
            axis.imshow(image)
    return figure
