"""Reads what the files of masks store: one integer or one color per pixel."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from spine.data import faults, png
from spine.data.image_files import JPEG_SUFFIXES, open_with_pillow, read_bytes, undecodable_message
from spine.errors import InputError, UnreadableFileError


def read_mask(path: str | Path, data: np.ndarray | None = None) -> np.ndarray:
    """Returns the stored values of a mask, (H, W) uint8 or uint16.

    These are the indices of a palette image, and 0 and 1 of a 1-bit image.

    `data`: the bytes (N,) uint8 of the file if they are in memory; `path` is then for messages.

    Raises InputError for a JPEG, for colors, and for every other file that does not store one
    integer per pixel.
    """
    data = _read_lossless(path, data)
    header = png.read_png_header(data)
    indices = _read_indices(data) if header is None or _stores_indices(header) else None
    if indices is not None:
        return indices
    mask = _to_one_channel(path, _decode(path, data, cv2.IMREAD_UNCHANGED))
    if header is not None and header.color_type == png.GRAY and header.bit_depth < 8:
        mask = mask // (255 // (2**header.bit_depth - 1))  # OpenCV scales the values 0..2^bits-1 to 0..255
    return _checked_type(path, mask)


def read_mask_channels(path: str | Path, count: int) -> np.ndarray:
    """Returns the stored values of the first `count` channels of a mask, (H, W, count) uint8 or uint16, in the order red, green,
    blue, alpha.

    Raises InputError for a JPEG, for a file with fewer channels, and if one of the other channels is not constant.
    """
    if count == 1:
        return read_mask(path)[..., None]
    mask = _checked_type(path, _decode(path, _read_lossless(path), cv2.IMREAD_UNCHANGED))
    channels = mask.shape[2] if mask.ndim == 3 else 1
    if channels < count:
        raise InputError(
            f"Mask '{path}' has {channels} channel{'s' * (channels > 1)}, and there are {count} classes. Store one channel for each "
            f"class, or one file for each class (dataset.multi_label=files)."
        )
    if channels >= 3:
        mask = mask[..., [2, 1, 0, *range(3, channels)]]  # OpenCV has blue first
    others = mask[..., count:]
    if others.size and (others != others[:1, :1]).any():
        raise InputError(
            f"Mask '{path}' has {channels} channels, and there are {count} classes: name the class of each channel in "
            f"dataset.classes, or remove the other channels."
        )
    return mask[..., :count]


def read_mask_colors(path: str | Path) -> np.ndarray:
    """Returns the colors of a color-coded mask, (H, W, 3) uint8 RGB.

    Palette images have the colors of their palette, gray images three equal channels.
    Raises InputError for a JPEG, for transparent pixels, and for a file that cannot be decoded.
    """
    data = _read_lossless(path)
    colors = _decode(path, data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    header = png.read_png_header(data)
    if header is None or png.has_transparency(data, header):
        _check_opaque(path, _decode(path, data, cv2.IMREAD_UNCHANGED))
    return colors


def jpeg_message(path: str | Path) -> str:
    """Message for a mask that is a JPEG."""
    return (
        f"Mask '{path}' is a JPEG. JPEG changes the values of pixels, so that class indices are lost. Save masks as PNG, "
        f"from the original annotations."
    )


def is_jpeg(path: str | Path) -> bool:
    """Whether a file is a JPEG by its name."""
    return str(path).lower().endswith(JPEG_SUFFIXES)


def _read_lossless(path: str | Path, data: np.ndarray | None = None) -> np.ndarray:
    """Returns the bytes of a mask. Raises InputError if it is a JPEG, whatever its name is."""
    data = read_bytes(path, "a mask") if data is None else data
    if data[:2].tobytes() == b"\xff\xd8":
        faults.report("jpeg_mask", jpeg_message(path), [path])
    return data


def _decode(path: str | Path, data: np.ndarray, flags: int) -> np.ndarray:
    """Returns the pixels that OpenCV decodes. Raises UnreadableFileError if it cannot."""
    pixels = cv2.imdecode(data, flags) if len(data) else None
    if pixels is None:
        raise UnreadableFileError(undecodable_message(path, data, "a mask"), str(path))
    return pixels


def _checked_type(path: str | Path, mask: np.ndarray) -> np.ndarray:
    """Returns a mask. Raises InputError if its numbers have neither 8 nor 16 bits."""
    if mask.dtype not in (np.uint8, np.uint16):
        raise InputError(f"Mask '{path}' holds {mask.dtype} numbers; a mask holds class indices of 8 or 16 bits. Convert it.")
    return mask


def _stores_indices(header: png.PngHeader) -> bool:
    """Whether OpenCV would convert the values of a PNG to colors: palette images and 1-bit images."""
    return header.color_type == png.PALETTE or (header.color_type == png.GRAY and header.bit_depth == 1)


def _read_indices(data: np.ndarray) -> np.ndarray | None:
    """Returns the indices of a palette image or the bits of a 1-bit image, (H, W) uint8.

    None for every other image.
    """
    image = open_with_pillow(data)
    if image is None or image.mode not in ("P", "1"):
        return None
    try:
        return np.array(image).astype(np.uint8)
    except (OSError, ValueError, SyntaxError):
        return None  # broken: OpenCV tries next, and its failure is reported


def _to_one_channel(path: str | Path, mask: np.ndarray) -> np.ndarray:
    if mask.ndim == 2:
        return mask
    colors = mask[..., :3]
    if (colors != colors[..., :1]).any():
        raise InputError(
            f"Mask '{path}' holds colors (shape {mask.shape}); a mask is one channel of class indices. Give the color of each class "
            f"in dataset.color_map, or convert it to one number per pixel, or to a palette PNG, whose indices are read."
        )
    _check_opaque(path, mask)
    return colors[..., 0]


def _check_opaque(path: str | Path, mask: np.ndarray) -> None:
    """Raises InputError if the transparency of the pixels (H, W, 4) differs."""
    alpha = mask[..., 3:] if mask.ndim == 3 else mask[:0]
    if alpha.size and (alpha != alpha.flat[0]).any():
        raise InputError(f"Mask '{path}' has transparent pixels; a mask has one class index or color per pixel. Convert it.")
