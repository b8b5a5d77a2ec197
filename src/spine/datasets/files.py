"""Reads pictures and lists folders; what is missing or broken is named in one sentence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from spine.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def read_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB; grey pictures get three equal channels."""
    return _decode(Path(path), cv2.IMREAD_COLOR_RGB, "an image")


def read_mask(path: str | Path) -> np.ndarray:
    """(H, W) uint8 of class indices, as stored. A palette is not resolved: its indices would be lost."""
    mask = _decode(Path(path), cv2.IMREAD_UNCHANGED, "a mask")
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise InputError(
            f"Mask '{path}' has shape {mask.shape} and type {mask.dtype}; a mask is one 8-bit channel of class indices. "
            f"Convert coloured masks to indices first."
        )
    return mask


def _decode(path: Path, flags: int, what: str) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"File '{path}' is missing; the data set lists it as {what}.")
    data = np.fromfile(path, np.uint8)
    picture = cv2.imdecode(data, flags) if len(data) else None
    if picture is None:
        raise InputError(
            f"File '{path}' cannot be decoded as {what}; it is empty or corrupt. Replace it or take it out of the data set."
        )
    return picture


def need_folder(path: str | Path, what: str) -> Path:
    """The path of a folder that must exist."""
    path = Path(path)
    if not path.is_dir():
        parent = path.parent
        beside = sorted(child.name for child in parent.iterdir() if child.is_dir()) if parent.is_dir() else []
        hint = f" Folders beside it: {', '.join(beside[:8])}." if beside else " Set dataset.root to where the data lies."
        raise InputError(f"There is no folder '{path}', where {what} should be.{hint}")
    return path


def need_file(path: str | Path, what: str) -> Path:
    """The path of a file that must exist."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file '{path}', where {what} should be.")
    return path


def list_images(folder: Path) -> list[Path]:
    """The image files of one folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def need_root(root: str | None, name: str) -> Path:
    """dataset.root, which must be set and exist."""
    if root is None:
        raise InputError(f"Data set '{name}' lies on disk: give its folder with dataset.root=<path>.")
    return need_folder(root, f"data set '{name}'")
