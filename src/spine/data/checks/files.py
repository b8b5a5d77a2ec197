"""Reads one image or mask file: what it stores, and whether all of it is there."""

from __future__ import annotations

import hashlib
import warnings

import cv2
import numpy as np
from PIL import Image

from spine.data.faults import Fault
from spine.data.image_files import exif_orientation, open_with_pillow

THUMB = 12  # side of the thumbnail that confirms near-duplicates
RECORD = np.dtype([  # what is kept of each image that can be read
    ("index", np.int64), ("label", np.int32), ("size", np.int32, 2), ("digest", np.uint64, 2), ("hash", np.uint64),
    ("thumb", np.uint8, (THUMB, THUMB)), ("mean", np.float32, 3), ("square", np.float32, 3),
])  # fmt: skip
STEP = 2  # differences of the perceptual hash that are noise
GRAY = 128  # what a JPEG decoder writes where data is missing
BLOCK = 8  # pixels of a side of a block of a JPEG
ENDS = ((b"\xff\xd8", b"\xff\xd9"), (b"\x89PNG", b"IEND\xaeB`\x82"))  # first and last bytes of JPEG and PNG
TRAILING = 64  # bytes at the end of a file in which its last bytes are searched


def broken(path: str, data: np.ndarray, what: str) -> Fault | None:
    """Returns the fault of a file whose bytes cannot be decoded completely, or None. `what`: image or mask."""
    if not len(data):
        return Fault("empty_file", f"'{path}' has zero bytes.", (path,))
    raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    picture = open_with_pillow(data)
    if raw is None and (picture is None or _load_error(picture) is not None):
        kind = "truncated" if picture is not None and not _has_end(data) else "unreadable"
        return Fault(kind, f"'{path}' cannot be decoded as an {what}.", (path,))
    if raw is not None and raw.dtype not in (np.uint8, np.uint16):
        return Fault("float_image", f"'{path}' holds {raw.dtype} numbers.", (path,))
    if raw is not None and _is_gray_below(data, raw):
        return Fault("truncated", f"'{path}' is decoded with a gray lower part.", (path,))
    if picture is not None and not _has_end(data) and (error := _load_error(picture)) is not None:
        return Fault("truncated", f"'{path}' is not complete ({error}).", (path,))
    return None


def _has_end(data: np.ndarray) -> bool:
    """Whether a JPEG or PNG has its last bytes. False for other formats, whose end is not known."""
    head, tail = data[:4].tobytes(), data[-TRAILING:].tobytes()
    return any(head.startswith(first) and last in tail for first, last in ENDS)


def _load_error(picture: Image.Image) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture.load()
        except (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError) as error:
            return str(error)
    return None


def _is_gray_below(data: np.ndarray, raw: np.ndarray) -> bool:
    """Whether the lower part of a JPEG is the gray of missing data, from the middle of a row of blocks on.

    A gray border that was drawn begins with a whole row, as does the gray of the few files that end with a row of blocks.
    """
    if data[:2].tobytes() != b"\xff\xd8" or (raw[-1] != GRAY).any():
        return False
    colored = np.flatnonzero((raw != GRAY).any(tuple(range(1, raw.ndim))))
    return bool(len(colored) and (raw[colored[-1], -BLOCK:] == GRAY).all())


def storage(path: str, data: np.ndarray, image: np.ndarray) -> list[Fault]:
    """Returns what is special about how an image is stored: at most one of its color kinds, and its EXIF rotation.

    `image`: (H, W, 3) uint8 as training reads it.
    """
    found = []
    kind, message, values = _color_kind(data, image)
    if kind:
        found.append(Fault(kind, f"'{path}' {message}.", (path,), values))
    if (orientation := exif_orientation(data)) != 1:
        found.append(Fault("exif_rotation", f"'{path}' has the EXIF orientation {orientation}.", (path,)))
    return found


def _color_kind(data: np.ndarray, image: np.ndarray) -> tuple[str, str, tuple[int, ...]]:
    picture = open_with_pillow(data)
    mode = picture.mode if picture is not None else ""
    if mode == "CMYK":
        return "cmyk", "stores CMYK", ()
    if data[:2].tobytes() != b"\xff\xd8":
        raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if raw is not None and raw.dtype == np.uint16:
            return "sixteen_bit", f"has 16 bits and reaches {int(raw.max())}", (int(raw.max()),)
    if picture is not None and picture.has_transparency_data:
        return "alpha", "has transparent pixels or an alpha channel", ()
    if mode == "P":
        return "palette", "stores a palette", ()
    if mode in ("L", "1") or is_gray(image):
        return "grayscale", "is grayscale", ()
    return "", "", ()


def is_gray(image: np.ndarray) -> bool:
    """Whether the three channels of an image (H, W, 3) are equal."""
    few = image[::16, ::16]  # they decide most images
    return not (few != few[..., :1]).any() and not (image != image[..., :1]).any()


def describe(index: int, label: int, image: np.ndarray, data: np.ndarray | None) -> np.ndarray:
    """Returns the record () of an image (H, W, 3) uint8. `data`: its bytes; None: the content is that of its pixels."""
    record = np.zeros((), RECORD)
    record["index"], record["label"], record["size"] = index, label, image.shape[:2]
    content = np.ascontiguousarray(image if data is None else data)
    record["digest"] = np.frombuffer(hashlib.blake2b(content.data, digest_size=16).digest(), np.uint64)
    small = cv2.resize(image, (9 * 4, 8 * 4), interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    record["hash"], record["thumb"] = difference_hash(gray), cv2.resize(gray, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    mean, deviation = cv2.meanStdDev(image)
    record["mean"], record["square"] = mean[:, 0] / 255, (deviation[:, 0] ** 2 + mean[:, 0] ** 2) / 255**2
    return record


def difference_hash(gray: np.ndarray) -> np.uint64:
    """Returns dHash: 64 bits, whether each of 8 x 8 cells is darker than its right neighbor (Krawetz, "Kind of Like That", 2013)."""
    cells = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.packbits(cells[:, 1:] > cells[:, :-1] + STEP).view(np.uint64)[0]
