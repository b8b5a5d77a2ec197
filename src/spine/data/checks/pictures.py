"""Small pictures of findings, for doctor.html."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from spine.data.checks.kinds import Finding
from spine.data.faults import Fault
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, RawSample

SIDE = 200  # pixels of the longer side of a picture
SHOWN = 4  # files of one fault
COLORED = 64  # stored values, at most, of a mask that is shown with a color for each
OF_MASKS = frozenset(
    {"unknown_values", "mask_size", "jpeg_mask", "empty_mask", "mask_without_image"}
)  # their last file is a mask
Picture = tuple[str, np.ndarray]  # caption, (h, w, 3) uint8 RGB


def draw(finding: Finding, load: Callable[[int], RawSample] | None = None) -> list[Picture]:
    """Returns pictures of the examples of a finding. Files that cannot be decoded at all have none.

    `load`: returns a sample of the finding's split, for images without a file of their own.
    """
    pictures: list[Picture] = []
    for fault in finding.examples:
        if not fault.files and fault.index >= 0 and load is not None:
            try:
                pictures.append((f"sample {fault.index}", _small(_marked(load(fault.index)["image"], fault))))
            except InputError:
                continue
        for file in fault.files[:SHOWN]:
            is_mask = finding.kind in OF_MASKS and file == fault.files[-1]
            if (image := _decoded(file, is_mask)) is not None:
                name = Path(file)
                pictures.append((f"{name.parent.name}/{name.name}", _small(_marked(image, fault))))
    return pictures


def _decoded(file: str, is_mask: bool) -> np.ndarray | None:
    """Returns the pixels (H, W, 3) uint8 of a file, or None."""
    try:
        data = np.fromfile(file, np.uint8)
    except OSError:
        return None
    raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if is_mask and raw is not None and raw.ndim == 2 and len(np.unique(raw)) <= COLORED:
        return _colors()[np.minimum(raw, IGNORE_INDEX)]
    if raw is not None and raw.dtype.kind == "f":  # not read by training: only its shape is shown
        gray = (255 * (raw - raw.min()) / max(float(np.ptp(raw)), 1e-12)).astype(np.uint8)
        return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB) if gray.ndim == 2 else gray[..., 2::-1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None


def _colors() -> np.ndarray:
    """Returns the color of each stored value, (256, 3) uint8: 0 is black, 255 white."""
    hues = [colorsys.hsv_to_rgb(i * 0.618 % 1, 0.65, 0.95) for i in range(256)]
    colors = (np.array(hues) * 255).astype(np.uint8)
    colors[0], colors[IGNORE_INDEX] = 0, 255
    return colors


def _marked(image: np.ndarray, fault: Fault) -> np.ndarray:
    """Returns the image with the box and the keypoints of a fault, on a canvas that contains them."""
    if not fault.points:
        return image
    x, y, width, height = fault.box
    corners = np.array([*fault.points, (x, y), (x + width, y + height), (0, 0), image.shape[1::-1]])
    limit = 2 * max(image.shape[:2])  # a point may be anywhere
    low = np.clip(np.floor(corners.min(0)), -limit, 0).astype(int)
    high = np.clip(np.ceil(corners.max(0)), 0, limit).astype(int)
    canvas = np.full((high[1] - low[1] + 1, high[0] - low[0] + 1, 3), 200, np.uint8)
    canvas[-low[1] : image.shape[0] - low[1], -low[0] : image.shape[1] - low[0]] = image
    edge = max(canvas.shape[:2]) // 25  # for points on the border
    canvas, low, high = np.pad(canvas, ((edge, edge), (edge, edge), (0, 0)), constant_values=200), low - edge, high + edge
    thick = max(1, max(canvas.shape[:2]) // 150)
    start, end = (int(x - low[0]), int(y - low[1])), (int(x + width - low[0]), int(y + height - low[1]))
    cv2.rectangle(canvas, start, end, (40, 120, 255), thick)
    for point in np.clip(np.array(fault.points), low, high) - low:
        cv2.circle(canvas, tuple(map(int, point)), 2 * thick, (255, 60, 60), -1)
    return canvas


def _small(image: np.ndarray) -> np.ndarray:
    scale = SIDE / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
