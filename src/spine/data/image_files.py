"""Reads images and lists folders; missing or broken files are reported in one sentence."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from spine.errors import InputError

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
IMAGE_SUFFIXES = (
    *JPEG_SUFFIXES, ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".avif", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
UNREADABLE_SUFFIXES = (  # images that OpenCV does not read: reported, because a user takes them for part of the data set
    ".heic", ".heif", ".jxl", ".svg", ".psd", ".ico", ".exr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".dcm",
)  # fmt: skip
CHECKED = 16  # files that are read before training, evenly spaced over a split
DARK = 1 << 14  # 16-bit images below it hold 10, 12 or 14 bits; read as 16 bits they have a quarter of the brightness or less
Size = tuple[int, int]  # height, width


def report(message: str) -> None:
    """A warning about a data set, from the first process only: every process opens the same files."""
    if os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("RANK", "0") == "0":
        logging.getLogger("spine.data").warning(message)


def listed(names: Iterable[object], limit: int = 8) -> str:
    """`a, b, c`; beyond `limit` the rest is counted."""
    words = [str(name) for name in names]
    return ", ".join(words[:limit]) + (f" and {len(words) - limit} more" if len(words) > limit else "")


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_bytes(path: str | Path, what: str) -> np.ndarray:
    """The bytes of a file. InputError where it is missing."""
    try:
        return np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise InputError(f"File '{path}' is missing; the data set lists it as {what}.") from None


def read_image(path: str | Path, size: Size | None = None, upright: bool = True) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Gray images get three equal channels, and transparent pixels become white.

    `upright` turns the image by its EXIF orientation. Annotations in pixels give the `size` (height, width) that they were made for
    instead: the stored pixels are returned where they have this size, else the upright ones. InputError where neither has it.
    """
    data = read_bytes(path, "an image")
    if size is None:
        return _decode(path, data, upright)
    stored = _decode(path, data, upright=False)
    if stored.shape[:2] == tuple(size):
        return stored
    turned = _decode(path, data, upright=True)
    if turned.shape[:2] != tuple(size):
        raise InputError(
            f"Image '{path}' is {stored.shape[0]}x{stored.shape[1]} (height x width), but its annotations were made for "
            f"{size[0]}x{size[1]}. Use the original image, or scale its annotations and their width and height."
        )
    return turned


def _decode(path: str | Path, data: np.ndarray, upright: bool) -> np.ndarray:
    blended = None if data[:2].tobytes() == b"\xff\xd8" else _blend(data, upright)  # JPEG has no transparency
    if blended is not None:
        return blended
    flags = cv2.IMREAD_COLOR_RGB if upright else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(data, flags) if len(data) else None
    if image is None:
        raise InputError(undecodable(path, data, "an image"))
    return image


def open_header(data: np.ndarray) -> Image.Image | None:
    """Pillow's image of a file's bytes, whose pixels are not decoded yet; None where Pillow does not know the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # aerial images are that large
        try:
            return Image.open(io.BytesIO(data.tobytes()))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None


def _blend(data: np.ndarray, upright: bool) -> np.ndarray | None:
    """An image with transparency on a white ground, as viewers show it; None for every other image."""
    image = open_header(data)
    if image is None or not image.has_transparency_data:
        return None
    try:
        layer = (ImageOps.exif_transpose(image) if upright else image).convert("RGBA")
    except (OSError, ValueError, SyntaxError):
        return None  # broken: OpenCV tries next, and its failure is reported
    return np.array(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))


def undecodable(path: str | Path, data: np.ndarray, what: str) -> str:
    """Why a file cannot be read, as far as its bytes tell, and what to do."""
    raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if raw is not None:
        return (
            f"File '{path}' cannot be decoded as {what}: its pixels are {raw.dtype} numbers of shape {raw.shape}, and images have "
            f"8 or 16 bits in 1, 3 or 4 channels. Convert it to 8 bits."
        )
    return f"File '{path}' cannot be decoded as {what}; it is empty or corrupt. Replace it or take it out of the data set."


def spaced(count: int, most: int) -> list[int]:
    """At most `most` of the indices 0..count-1, evenly spaced."""
    return list(range(count)) if count <= most else [i * count // most for i in range(most)]


def check_images(files: Sequence[tuple[str | Path, Size | None]]) -> None:
    """Reads a few of (path, size as in `read_image`) before training: InputError where one is broken, a warning where most look wrong."""
    brightest = [0]
    for i in spaced(len(files), CHECKED):
        path, size = files[i]
        read_image(path, size)
        if Path(path).suffix.lower() not in JPEG_SUFFIXES:
            raw = cv2.imdecode(read_bytes(path, "an image"), cv2.IMREAD_UNCHANGED)
            if raw is not None and raw.dtype == np.uint16:
                brightest.append(int(raw.max()))
    if 0 < max(brightest) < DARK:
        report(
            f"The 16-bit images of '{Path(files[0][0]).parent}' reach only {max(brightest)} of 65535 ({len(brightest) - 1} were checked): "
            f"they are read almost black. Scale them to the full 16 bits, or to 8 bits."
        )


# ---- folders ---------------------------------------------------------------------------------------------------------


def hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's: .git, .ipynb_checkpoints, and the ._ files and __MACOSX of macOS."""
    return name.startswith(".") or name == "__MACOSX"


def image_names(folder: str | Path) -> list[str]:
    """The names of the image files directly in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(IMAGE_SUFFIXES) and not hidden(entry.name) and not entry.is_dir()
        )


def has_images(folder: str | Path) -> bool:
    """Whether an image file lies directly in a folder."""
    with os.scandir(folder) as entries:
        return any(e.name.lower().endswith(IMAGE_SUFFIXES) and not hidden(e.name) and not e.is_dir() for e in entries)


def list_images(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name."""
    return [folder / name for name in image_names(folder)]


def subfolders(folder: str | Path) -> list[str]:
    """The names of the folders in a folder that are not hidden, sorted. Empty where there is no such folder."""
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not hidden(entry.name))


def report_unread(folders: Iterable[str | Path], where: str | Path) -> None:
    """Reports the files directly in `folders` that are images of a kind that is not read; `where` names the folders together."""
    found: list[str] = []
    for folder in folders:
        with os.scandir(folder) as entries:
            suffixes = [os.path.splitext(entry.name)[1].lower() for entry in entries if not hidden(entry.name)]
        found += [suffix for suffix in suffixes if suffix in UNREADABLE_SUFFIXES]
    if found:
        report(f"{len(found)} images in '{where}' are not read ({listed(sorted(set(found)))}): convert them to JPEG or PNG.")


class PackedNames:
    """File names in one block of bytes: a fifth of the memory of strings, and worker processes share it without a copy."""

    def __init__(self, names: Iterable[str]):
        encoded = [os.fsencode(name) for name in names]
        self.block = b"".join(encoded)
        self.ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        """Number of names."""
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> str:
        """One name, by a number from 0."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return os.fsdecode(self.block[self.ends[index] : self.ends[index + 1]])


def need_folder(path: str | Path, what: str) -> Path:
    """The path of a folder that must exist."""
    path = Path(path)
    if not path.is_dir():
        beside = subfolders(path.parent)
        hint = f" Folders beside it: {listed(beside)}." if beside else " Set dataset.root to where the data lies."
        raise InputError(f"There is no folder '{path}', where {what} should be.{hint}")
    return path


def need_file(path: str | Path, what: str) -> Path:
    """The path of a file that must exist."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file '{path}', where {what} should be.")
    return path


def need_root(root: str | None, name: str) -> Path:
    """dataset.root, which must be set and exist."""
    if root is None:
        raise InputError(f"Data set '{name}' lies on disk: give its folder with dataset.root=<path>.")
    return need_folder(root, f"data set '{name}'")
