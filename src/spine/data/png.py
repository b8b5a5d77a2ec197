"""Properties of a PNG file that are read from its header, without decoding the image."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # color types (PNG specification, section 11.2.2)


class PngHeader(NamedTuple):
    """The fields of a PNG header that decide how its pixels are read."""

    bit_depth: int  # bits per sample, or per palette index
    color_type: int


def read_png_header(data: np.ndarray) -> PngHeader | None:
    """Returns the header of a file's bytes (N,) uint8. None if the file is not a PNG."""
    start = data[:26].tobytes()
    if len(start) < 26 or not start.startswith(SIGNATURE) or start[12:16] != b"IHDR":
        return None
    return PngHeader(bit_depth=start[24], color_type=start[25])


def has_transparency(data: np.ndarray, header: PngHeader) -> bool:
    """Whether a PNG has an alpha channel, or a tRNS chunk (transparent colors) before its pixels."""
    if header.color_type in (GRAY_ALPHA, RGB_ALPHA):
        return True
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8].tobytes())
        if kind in (b"IDAT", b"IEND"):
            return False
        if kind == b"tRNS":
            return True
        position += 12 + length  # length and kind, content, checksum
    return False
