"""Masks of semantic segmentation: the values that a file stores, and the classes that they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from spine.data.image_files import JPEG_SUFFIXES, listed, open_header, read_bytes, undecodable
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX

UNKNOWN = -1  # in a table of values: no class has this value
ValueMap = Mapping[int, int | None]
PNG_GRAY, PNG_PALETTE = 0, 3  # color types of PNG's header


def read_mask(path: str | Path) -> np.ndarray:
    """(H, W) uint8 or uint16, the values that are stored: palette images give their indices, 1-bit images 0 and 1.

    InputError for JPEG, for colors and for anything that has not one integer a pixel.
    """
    data = read_bytes(path, "a mask")
    if data[:2].tobytes() == b"\xff\xd8":
        raise InputError(jpeg_refusal(path))
    indices = _indices(data)
    mask = indices if indices is not None else cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if mask is None:
        raise InputError(undecodable(path, data, "a mask"))
    if indices is None:
        mask = _one_channel(path, mask)
        bits = _png_bits(data)
        if bits < 8:  # OpenCV spreads the values 0 .. 2^bits - 1 over 0 .. 255
            mask = mask // (255 // (2**bits - 1))
    if mask.dtype not in (np.uint8, np.uint16):
        raise InputError(f"Mask '{path}' holds {mask.dtype} numbers; a mask holds class indices of 8 or 16 bits. Convert it.")
    return mask


def jpeg_refusal(path: str | Path) -> str:
    """What to say of a mask that is a JPEG."""
    return (
        f"Mask '{path}' is a JPEG. JPEG changes the values of pixels, so that class indices are lost. Save masks as PNG, "
        f"from the original annotations."
    )


def is_jpeg(path: Path) -> bool:
    """Whether a file is a JPEG by its name."""
    return path.suffix.lower() in JPEG_SUFFIXES


def _indices(data: np.ndarray) -> np.ndarray | None:
    """Indices of a palette image and bits of a 1-bit image, which OpenCV turns into colors; None for every other image."""
    image = open_header(data)
    if image is None or image.mode not in ("P", "1"):
        return None
    try:
        return np.array(image).astype(np.uint8)
    except (OSError, ValueError, SyntaxError):
        return None  # broken: OpenCV tries next, and its failure is reported


def _png_bits(data: np.ndarray) -> int:
    """Bits a pixel of a gray PNG; 8 for every other file."""
    gray = data[:8].tobytes() == b"\x89PNG\r\n\x1a\n" and len(data) > 25 and data[25] == PNG_GRAY
    return int(data[24]) if gray else 8


def _one_channel(path: str | Path, mask: np.ndarray) -> np.ndarray:
    if mask.ndim == 2:
        return mask
    colors, alpha = mask[..., :3], mask[..., 3:]
    if (colors != colors[..., :1]).any():
        raise InputError(
            f"Mask '{path}' holds colors (shape {mask.shape}); a mask is one channel of class indices. Convert it to one number a "
            f"pixel, or to a palette PNG, whose indices are read."
        )
    if alpha.size and (alpha != alpha.flat[0]).any():
        raise InputError(f"Mask '{path}' has transparent pixels; a mask is one channel of class indices. Convert it.")
    return colors[..., 0]


def value_table(
    count: int,
    *,
    ignore_index: int | Sequence[int] | None = None,
    reduce_zero_label: bool = False,
    value_map: ValueMap | None = None,
) -> np.ndarray:
    """(65536,) int16: the class 0..count-1 of each stored value, IGNORE_INDEX where it is ignored, UNKNOWN where no class has it.

    255 is a value like every other: only `ignore_index` and `value_map` (with None) make values ignored, and `reduce_zero_label` 0.
    """
    table = np.full(1 << 16, UNKNOWN, np.int16)
    ignored = [] if ignore_index is None else [ignore_index] if isinstance(ignore_index, int) else list(ignore_index)
    if value_map is not None and reduce_zero_label:
        raise InputError("dataset.value_map and dataset.reduce_zero_label exclude each other: map the value 0 to null instead.")
    if value_map is None:
        first = 1 if reduce_zero_label else 0
        value_map = {first + number: number for number in range(count)}
        ignored += [0] if reduce_zero_label else []
    for value, number in value_map.items():
        if number is not None and not 0 <= int(number) < count:
            raise InputError(
                f"dataset.value_map maps {value} to {number}; there are {count} classes, 0 to {count - 1}, and null for ignored pixels."
            )
        table[_stored(value, "value_map")] = IGNORE_INDEX if number is None else int(number)
    for value in ignored:
        table[_stored(value, "ignore_index")] = IGNORE_INDEX
    return table


def _stored(value: int | str, key: str) -> int:
    """A stored value; JSON turns the keys of a map into strings."""
    try:
        number = int(value)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 16:
        raise InputError(f"dataset.{key} names the stored value {value}; masks store integers from 0 to 65535.")
    return number


def to_classes(mask: np.ndarray, table: np.ndarray, path: str | Path, count: int) -> np.ndarray:
    """(H, W) uint8 of classes and IGNORE_INDEX. InputError names every stored value that no class has."""
    classes = table[mask]
    if classes.size and classes.min() == UNKNOWN:
        values = np.unique(mask[classes == UNKNOWN]).tolist()
        plural = "s" if len(values) > 1 else ""
        message = f"Mask '{path}' holds the value{plural} {listed(values, 20)}, which none of the {count} classes has. "
        if 255 in values:
            message += (
                'If 255 is a class, such as foreground, map it: "dataset.value_map={0: 0, 255: 1}"; '
                "if it means 'unlabelled', set dataset.ignore_index=255. "
            )
        raise InputError(
            f"{message}Name every class in dataset.classes, map stored values with dataset.value_map, or set dataset.ignore_index to "
            f"the value that means 'unlabelled'."
        )
    return classes.astype(np.uint8)
