"""Masks of semantic segmentation: reads stored values and maps them to classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from spine.data import png
from spine.data.image_files import JPEG_SUFFIXES, format_names, open_with_pillow, read_bytes, undecodable_message
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX

NO_CLASS = -1  # in a value table: the stored value has no class
ValueMap = Mapping[int, int | None]


def read_mask(path: str | Path) -> np.ndarray:
    """Returns the stored values of a mask, (H, W) uint8 or uint16.

    These are the indices of a palette image, and 0 and 1 of a 1-bit image.

    Raises InputError for a JPEG, for colors, and for every other file that does not store one
    integer per pixel.
    """
    data = read_bytes(path, "a mask")
    if data[:2].tobytes() == b"\xff\xd8":
        raise InputError(jpeg_message(path))
    header = png.read_png_header(data)
    indices = _read_indices(data) if header is None or _stores_indices(header) else None
    if indices is not None:
        return indices
    mask = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if mask is None:
        raise InputError(undecodable_message(path, data, "a mask"))
    mask = _to_one_channel(path, mask)
    if header is not None and header.color_type == png.GRAY and header.bit_depth < 8:
        mask = mask // (255 // (2**header.bit_depth - 1))  # OpenCV scales the values 0..2^bits-1 to 0..255
    if mask.dtype not in (np.uint8, np.uint16):
        raise InputError(f"Mask '{path}' holds {mask.dtype} numbers; a mask holds class indices of 8 or 16 bits. Convert it.")
    return mask


def jpeg_message(path: str | Path) -> str:
    """Message for a mask that is a JPEG."""
    return (
        f"Mask '{path}' is a JPEG. JPEG changes the values of pixels, so that class indices are lost. Save masks as PNG, "
        f"from the original annotations."
    )


def is_jpeg(path: Path) -> bool:
    """Whether a file is a JPEG by its name."""
    return path.suffix.lower() in JPEG_SUFFIXES


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
    colors, alpha = mask[..., :3], mask[..., 3:]
    if (colors != colors[..., :1]).any():
        raise InputError(
            f"Mask '{path}' holds colors (shape {mask.shape}); a mask is one channel of class indices. Convert it to one number per "
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
    """Returns a table (65536,) int16 from stored values to classes.

    Its entries are 0..count-1, IGNORE_INDEX for ignored values, and NO_CLASS.

    Values are ignored by `ignore_index`, by None in `value_map`, and 0 by `reduce_zero_label`. 255
    has no special meaning. Raises InputError for a value or class out of range, or if the options
    exclude each other.
    """
    table = np.full(1 << 16, NO_CLASS, np.int16)
    ignored = [] if ignore_index is None else [ignore_index] if isinstance(ignore_index, int) else list(ignore_index)
    if value_map is not None and reduce_zero_label:
        raise InputError("dataset.value_map and dataset.reduce_zero_label exclude each other: map the value 0 to null instead.")
    if value_map is None:
        first = 1 if reduce_zero_label else 0
        value_map = {first + index: index for index in range(count)}
        ignored += [0] if reduce_zero_label else []
    for value, index in value_map.items():
        if index is not None and not 0 <= int(index) < count:
            raise InputError(
                f"dataset.value_map maps {value} to {index}; there are {count} classes, 0 to {count - 1}, and null for ignored pixels."
            )
        table[_stored_value(value, "value_map")] = IGNORE_INDEX if index is None else int(index)
    for value in ignored:
        table[_stored_value(value, "ignore_index")] = IGNORE_INDEX
    return table


def _stored_value(value: int | str, key: str) -> int:
    """Returns a stored value as a number; JSON turns the keys of a map into strings.

    `key` of the option, for messages.
    """
    try:
        number = int(value)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 16:
        raise InputError(f"dataset.{key} has the stored value {value}; masks store integers from 0 to 65535.")
    return number


def to_classes(mask: np.ndarray, table: np.ndarray, path: str | Path, count: int) -> np.ndarray:
    """Maps stored values (H, W) to classes and IGNORE_INDEX, (H, W) uint8.

    Raises InputError with all stored values that have no class. `count`: number of classes, for the
    message.
    """
    classes = table[mask]
    if classes.size and classes.min() == NO_CLASS:
        values = np.unique(mask[classes == NO_CLASS]).tolist()
        plural = "s" if len(values) > 1 else ""
        message = f"Mask '{path}' holds the value{plural} {format_names(values, 20)}, which none of the {count} classes has. "
        if 255 in values:
            message += (
                'If 255 is a class, such as foreground, map it: "dataset.value_map={0: 0, 255: 1}"; '
                "if it means 'unlabeled', set dataset.ignore_index=255. "
            )
        raise InputError(
            f"{message}List every class in dataset.classes, map stored values with dataset.value_map, or set dataset.ignore_index to "
            f"the value that means 'unlabeled'."
        )
    return classes.astype(np.uint8)
