"""Text, panels, masks and skeletons on images (H, W, 3) uint8 RGB."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from spine.data.keypoint_flips import find_side
from spine.interfaces import IGNORE_INDEX
from spine.reporting.figures import FALLBACK_FONTS

OPACITY = 0.6  # of masks over images
MIN_SIDE = 128  # pixels of a panel; smaller images are enlarged by a whole factor
FIRST_CJK = 0x2E80  # the first character that matplotlib's own font lacks and CJK fonts have
HIDDEN = 128  # gray of masked patches
MIN_BORDERED = 2.0  # radius of a point from which it has a white border, which would hide smaller ones
DARK, LIGHT = (20, 20, 20), (255, 255, 255)


@functools.cache
def font(size: int, cjk: bool = False) -> ImageFont.FreeTypeFont:
    """Returns matplotlib's font, or with `cjk` an installed font for Chinese, Japanese and Korean if there is one."""
    if cjk:
        installed = set(font_manager.get_font_names())
        for name in FALLBACK_FONTS:
            if name in installed:
                return ImageFont.truetype(str(font_manager.findfont(name)), size)
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Returns a font that has the characters of a text."""
    return font(size, any(ord(character) >= FIRST_CJK for character in text))


def shorten(text: str, width: int, size: int, keep_end: bool = False) -> str:
    """Returns a text that is at most `width` pixels wide: the end, or with `keep_end` the start, is left out."""
    own = font_for(text, size)
    if own.getlength(text) <= width:
        return text
    for length in range(len(text) - 1, 0, -1):
        cut = f"…{text[-length:]}" if keep_end else f"{text[:length]}…"
        if own.getlength(cut) <= width:
            return cut
    return ""


def with_lines(image: np.ndarray, lines: Sequence[str], size: int = 14) -> np.ndarray:
    """Returns an image with lines of text below it, on white."""
    height, width = image.shape[:2]
    step = round(size * 1.45)
    canvas = Image.new("RGB", (width, height + step * len(lines) + size // 2), LIGHT)
    canvas.paste(Image.fromarray(image), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for i, line in enumerate(lines):
        shown = shorten(line, width - 6, size)
        draw.text((4, height + size // 4 + step * i), shown, DARK, font_for(line, size))
    return np.asarray(canvas)


def enlarge(image: np.ndarray, side: int = MIN_SIDE) -> np.ndarray:
    """Returns an image whose shorter side has at least `side` pixels: each pixel becomes a square of them."""
    factor = -(-side // min(image.shape[:2]))
    return image if factor <= 1 else image.repeat(factor, axis=0).repeat(factor, axis=1)


def fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns an image that fits into a rectangle, with its aspect ratio. Small images are enlarged by a whole factor."""
    scale = min(height / image.shape[0], width / image.shape[1])
    if scale >= 2:
        return image.repeat(int(scale), axis=0).repeat(int(scale), axis=1)
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def panels(images: Sequence[np.ndarray], titles: Sequence[str], size: int = 12) -> np.ndarray:
    """Returns images of one size side by side, with a title above each."""
    shown = [enlarge(image) for image in images]
    height, width = shown[0].shape[:2]
    gap, top = 4, round(size * 1.6)
    canvas = Image.new("RGB", (len(shown) * (width + gap) - gap, height + top), LIGHT)
    draw = ImageDraw.Draw(canvas)
    for i, (image, title) in enumerate(zip(shown, titles, strict=True)):
        left = i * (width + gap)
        draw.text((left + 2, 1), shorten(title, width - 2, size), DARK, font_for(title, size))
        canvas.paste(Image.fromarray(image), (left, top))
    return np.asarray(canvas)


def masked_pixels(patch_mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Returns which pixels of an image (H, W, 3) are in masked patches, (H, W) bool. `patch_mask`: (h, w) bool."""
    down, across = image.shape[0] // patch_mask.shape[0], image.shape[1] // patch_mask.shape[1]
    return patch_mask.repeat(down, axis=0).repeat(across, axis=1)


def hide_patches(image: np.ndarray, patch_mask: np.ndarray) -> np.ndarray:
    """Returns an image whose masked patches are gray."""
    return np.where(masked_pixels(patch_mask, image)[..., None], np.uint8(HIDDEN), image)


def overlay(image: np.ndarray, mask: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Returns an image under the colors (256, 3) uint8 of a mask of its size.

    `mask`: (H, W), or (classes, H, W) of 0 and 1 if classes may overlap: their colors are then averaged, and pixels without a class
    stay as they are. Ignored pixels too.
    """
    if mask.ndim == 2:
        painted = cv2.addWeighted(image, 1 - OPACITY, colors[mask], OPACITY, 0)
        return np.where((mask == IGNORE_INDEX)[..., None], image, painted)
    total, count = np.zeros(image.shape, np.float32), np.zeros(image.shape[:2], np.float32)
    for layer, color in zip(mask, colors, strict=False):
        total += (layer == 1)[..., None] * color.astype(np.float32)
        count += layer == 1
    mean = (total / np.maximum(count, 1)[..., None]).round().astype(np.uint8)
    return np.where((count > 0)[..., None], cv2.addWeighted(image, 1 - OPACITY, mean, OPACITY, 0), image)


def draw_skeleton(
    image: np.ndarray,
    keypoints: np.ndarray,
    skeleton: Sequence[tuple[int, int]],
    colors: Sequence[tuple[int, int, int]],
    scale: float,
    threshold: float,
) -> None:
    """Draws keypoints (K, 3), x, y and score, with lines between them, into an image.

    `colors`: of each keypoint. `scale`: pixels of the radius of a point. Keypoints with a score of `threshold` or less are left out.
    """
    shift = 4  # bits of fractions of a pixel
    points = (keypoints[:, :2] * (1 << shift)).round().astype(int)
    shown = keypoints[:, 2] > threshold
    width = max(1, round(scale * 0.8))
    for a, b in skeleton:
        if shown[a] and shown[b]:
            color = colors[b] if colors[a] == colors[b] else CENTER
            cv2.line(image, points[a].tolist(), points[b].tolist(), color, width, cv2.LINE_AA, shift)
    for point, color, visible in zip(points, colors, shown, strict=True):
        if visible:
            radius = round(scale * (1 << shift))
            cv2.circle(image, point.tolist(), radius, color, -1, cv2.LINE_AA, shift)
            if scale >= MIN_BORDERED:
                cv2.circle(image, point.tolist(), radius, LIGHT, max(1, round(scale / 4)), cv2.LINE_AA, shift)


LEFT, RIGHT, CENTER = (255, 140, 0), (30, 144, 255), (60, 200, 90)  # of keypoints and lines, by their side of the body


def side_colors(names: Sequence[str], flip_pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Returns a color for each keypoint: orange on the left of the body, blue on the right, green if its name has no side."""
    colors = [CENTER] * len(names)
    for a, b in flip_pairs:
        side = find_side(names[a], names[b])
        if side is not None:
            colors[a], colors[b] = (LEFT, RIGHT) if side == "left" else (RIGHT, LEFT)
    return colors
