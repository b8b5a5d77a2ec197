"""Reads images and lists folders. Missing and broken files raise InputError."""

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

from spine.data.png import has_transparency, read_png_header
from spine.encoded_image import EncodedImage
from spine.errors import InputError, UnreadableFileError

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
IMAGE_SUFFIXES = (
    *JPEG_SUFFIXES, ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".avif", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
UNREADABLE_SUFFIXES = (  # image formats that OpenCV does not read; a user may expect them to be part of the data set
    ".heic", ".heif", ".jxl", ".svg", ".psd", ".ico", ".exr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".dcm",
)  # fmt: skip
BLACK_PEAK_16_BIT = 1 << 12  # 16-bit images below it are read as 0 to 15 of 255
NUM_CHECKED = 16  # files of a split that are read before training, evenly spaced
MIN_PEAK_16_BIT = 1 << 14  # 16-bit images below it hold 10, 12 or 14 bits: at most a quarter of the full brightness
SELECTED_AT_ONCE = 1 << 16  # names that PackedNames.select copies in one step
EXIF_ORIENTATION = 0x0112  # number of the EXIF tag
EXIF_BYTES = 1 << 16  # the part of a file that is searched for EXIF data; JPEG and PNG have it before the pixels
Size = tuple[int, int]  # height, width


def log_warning(message: str) -> None:
    """Logs a warning about a data set.

    Only the first process logs: every process opens the same files.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("RANK", "0") == "0":
        logging.getLogger("spine.data").warning(message)


def format_names(names: Iterable[object], limit: int = 8) -> str:
    """Returns `a, b, c`. Names after the first `limit` are counted: `a, b and 3 more`."""
    words = [str(name) for name in names]
    return ", ".join(words[:limit]) + (f" and {len(words) - limit} more" if len(words) > limit else "")


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_bytes(path: str | Path, what: str) -> np.ndarray:
    """Returns the bytes (N,) uint8 of a file.

    Raises UnreadableFileError if it is missing, a folder, or not allowed to be read. `what`: "an image", for messages.
    """
    try:
        with open(path, "rb") as file:
            return np.frombuffer(file.read(), np.uint8)  # twice as fast as np.fromfile, for files of this size
    except FileNotFoundError:
        message = f"File '{path}' is missing; the data set lists it as {what}."
        raise UnreadableFileError(message, str(path), "missing_file") from None
    except (IsADirectoryError, PermissionError) as error:
        message = f"'{path}' cannot be read as {what} ({error.strerror}). Correct its name, or allow this user to read it."
        raise UnreadableFileError(message, str(path)) from error


def read_image(path: str | Path, size: Size | None = None, upright: bool = True) -> np.ndarray:
    """Returns an image (H, W, 3) uint8 RGB.

    Gray images get three equal channels, and transparent pixels become white.

    `upright` applies the EXIF orientation. For annotations in pixels, pass the `size` (height,
    width) that they were made for instead: the stored pixels are returned if they have this size,
    otherwise the upright ones. Raises InputError if neither has it, or if the file cannot be read.
    """
    return decode(EncodedImage(read_bytes(path, "an image"), str(path), size, upright))


def decode(encoded: EncodedImage) -> np.ndarray:
    """Returns the image (H, W, 3) uint8 RGB of a file in memory: see `read_image`."""
    path, data, size = encoded.name, encoded.data, encoded.size
    if size is None:
        return decode_image(path, data, encoded.upright)
    stored = decode_image(path, data, upright=False)
    if stored.shape[:2] == tuple(size):
        return stored
    turned = decode_image(path, data, upright=True)
    if turned.shape[:2] != tuple(size):
        raise InputError(
            f"Image '{path}' is {stored.shape[0]}x{stored.shape[1]} (height x width), but its annotations were made for "
            f"{size[0]}x{size[1]}. Use the original image, or scale its annotations and their width and height."
        )
    return turned


def decode_image(path: str | Path, data: np.ndarray, upright: bool = True) -> np.ndarray:
    """Returns the image (H, W, 3) uint8 RGB of a file's bytes: see `read_image`. `path`: for messages."""
    blended = _blend_on_white(data, upright) if _may_be_transparent(data) else None
    if blended is not None:
        return blended
    flags = cv2.IMREAD_COLOR_RGB if upright else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(data, flags) if len(data) else None
    if image is None:
        raise UnreadableFileError(undecodable_message(path, data, "an image"), str(path))
    return image


def exif_orientation(data: np.ndarray) -> int:
    """Returns the EXIF orientation of an image file's bytes: 1 if it is stored upright or has none, 2 to 8 otherwise."""
    head = data[:EXIF_BYTES].tobytes()
    if b"Exif" not in head and b"eXIf" not in head:
        return 1
    image = open_with_pillow(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about broken EXIF data, which is then none
        try:
            return int(image.getexif().get(EXIF_ORIENTATION, 1)) if image is not None else 1
        except (OSError, ValueError, TypeError, SyntaxError):
            return 1


def open_with_pillow(data: np.ndarray) -> Image.Image | None:
    """Returns Pillow's image of a file's bytes, not decoded yet.

    None if Pillow does not know the format.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # aerial images are that large
        try:
            return Image.open(io.BytesIO(data.tobytes()))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None


def _may_be_transparent(data: np.ndarray) -> bool:
    """False if the header excludes transparency. Faster than opening the file with Pillow."""
    if data[:2].tobytes() == b"\xff\xd8":  # JPEG
        return False
    header = read_png_header(data)
    return header is None or has_transparency(data, header)


def _blend_on_white(data: np.ndarray, upright: bool) -> np.ndarray | None:
    """Returns an image with transparency on a white background, as viewers show it.

    None for every other image.
    """
    image = open_with_pillow(data)
    if image is None or not image.has_transparency_data:
        return None
    try:
        layer = (ImageOps.exif_transpose(image) if upright else image).convert("RGBA")
    except (OSError, ValueError, SyntaxError):
        return None  # broken: OpenCV tries next, and its failure is reported
    return np.array(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))


def undecodable_message(path: str | Path, data: np.ndarray, what: str) -> str:
    """Message for a file that cannot be decoded, with the reason if its bytes show it."""
    raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if raw is not None:
        return (
            f"File '{path}' cannot be decoded as {what}: its pixels are {raw.dtype} numbers of shape {raw.shape}, and images have "
            f"8 or 16 bits in 1, 3 or 4 channels. Convert it to 8 bits."
        )
    return f"File '{path}' cannot be decoded as {what}; it is empty or corrupt. Replace it or remove it from the data set."


def evenly_spaced(count: int, limit: int) -> list[int]:
    """Returns at most `limit` of the indices 0..count-1, evenly spaced."""
    return list(range(count)) if count <= limit else [i * count // limit for i in range(limit)]


def check_images(files: Sequence[tuple[str | Path, Size | None]]) -> None:
    """Reads a few files before training. `files`: path, and size as in `read_image`.

    Raises InputError if one of them is broken, or if 16-bit images hold 12 bits or fewer, which are read as black. Logs a warning
    if they hold 13 or 14. Numbers alone do not tell dark images from those of fewer bits, so nothing is scaled.
    """
    peaks = [0]
    for i in evenly_spaced(len(files), NUM_CHECKED):
        path, size = files[i]
        read_image(path, size)
        if Path(path).suffix.lower() not in JPEG_SUFFIXES:
            raw = cv2.imdecode(read_bytes(path, "an image"), cv2.IMREAD_UNCHANGED)
            if raw is not None and raw.dtype == np.uint16:
                peaks.append(int(raw.max()))
    if 0 < max(peaks) < MIN_PEAK_16_BIT:
        message = (
            f"The 16-bit images of '{Path(files[0][0]).parent}' reach only {max(peaks)} of 65535 ({len(peaks) - 1} were checked): "
            f"they are read almost black. Scale them to the full 16 bits (12-bit data: times 16), or to 8 bits."
        )
        if max(peaks) < BLACK_PEAK_16_BIT:
            raise InputError(message)
        log_warning(message)


# ---- folders ---------------------------------------------------------------------------------------------------------


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden: .git, .ipynb_checkpoints, and ._* and __MACOSX of macOS."""
    return name.startswith(".") or name == "__MACOSX"


def image_names(folder: str | Path) -> list[str]:
    """Returns the names of the image files directly in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if _is_image(entry))


def has_images(folder: str | Path) -> bool:
    """Whether there is an image file directly in a folder."""
    with os.scandir(folder) as entries:
        return any(map(_is_image, entries))


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(entry.name) and not entry.is_dir()


def list_images(folder: Path) -> list[Path]:
    """Returns the paths of the image files directly in a folder, sorted by name."""
    return [folder / name for name in image_names(folder)]


def subfolders(folder: str | Path) -> list[str]:
    """Returns the names of the subfolders that are not hidden, sorted.

    Empty if the folder does not exist.
    """
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))


def warn_of_unreadable_files(folders: Iterable[str | Path], root: str | Path) -> None:
    """Logs a warning if there are images of a format that is not read directly in `folders`.

    `root`: name of the folders together.
    """
    suffixes: list[str] = []
    for folder in folders:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not is_hidden(entry.name)]
        suffixes += [suffix for name in names if (suffix := os.path.splitext(name)[1].lower()) in UNREADABLE_SUFFIXES]
    if suffixes:
        log_warning(
            f"{len(suffixes)} images in '{root}' are not read ({format_names(sorted(set(suffixes)))}): convert them to JPEG or PNG."
        )


class PackedNames:
    """A list of file names in one block of bytes.

    It takes a fifth of the memory of strings, and worker processes share it.
    """

    def __init__(self, names: Iterable[str]):
        encoded = [os.fsencode(name) for name in names]
        self._fill(np.frombuffer(b"".join(encoded), np.uint8), np.fromiter(map(len, encoded), np.int64, len(encoded)))

    @classmethod
    def from_block(cls, block: np.ndarray, lengths: np.ndarray) -> PackedNames:
        """Returns the names in the bytes `block` (B,) uint8, one after the other; `lengths` (N,) are their numbers of bytes."""
        names = cls.__new__(cls)
        names._fill(block, lengths)
        return names

    def _fill(self, block: np.ndarray, lengths: np.ndarray) -> None:
        self.block = block
        self.ends = np.zeros(len(lengths) + 1, np.uint32 if len(block) < 1 << 32 else np.int64)
        np.cumsum(lengths, out=self.ends[1:])

    def __len__(self) -> int:
        """Number of names."""
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> str:
        """Returns the name at an index from 0."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return os.fsdecode(self.block[self.ends[index] : self.ends[index + 1]].tobytes())

    def select(self, indices: np.ndarray) -> PackedNames:
        """Returns the names at `indices` (N,), in their order."""
        lengths = np.diff(self.ends)[indices].astype(np.int64)
        block = np.empty(int(lengths.sum()), np.uint8)
        done = 0
        for start in range(0, len(indices), SELECTED_AT_ONCE):  # the positions of all bytes at once would take 8 times the block
            part, of_part = indices[start : start + SELECTED_AT_ONCE], lengths[start : start + SELECTED_AT_ONCE]
            starts = self.ends[part].astype(np.int64) - (np.cumsum(of_part) - of_part)
            positions = np.repeat(starts, of_part) + np.arange(of_part.sum())
            block[done : done + len(positions)] = self.block[positions]
            done += len(positions)
        return PackedNames.from_block(block, lengths)


def need_folder(path: str | Path, what: str) -> Path:
    """Returns the path of a folder.

    Raises InputError if it does not exist. `what` it should contain, for the message.
    """
    path = Path(path)
    if not path.is_dir():
        siblings = subfolders(path.parent)
        hint = f" Folders next to it: {format_names(siblings)}." if siblings else " Set dataset.root to the folder of the data."
        raise InputError(f"There is no folder '{path}', where {what} should be.{hint}")
    return path


def need_file(path: str | Path, what: str) -> Path:
    """Returns the path of a file.

    Raises InputError if it does not exist. `what` it should contain, for the message.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file '{path}', where {what} should be.")
    return path


def read_class_names(path: Path) -> list[str]:
    """Returns the names of classes in a text file, one per line.

    Raises InputError if the file does not exist, or if it names a class twice.
    """
    path = need_file(path, "the names of the classes (or give dataset.classes=[...])")
    names = [line.strip() for line in read_text_lines(path)]
    if repeated := [name for number, name in enumerate(names) if name in names[:number]]:
        raise InputError(f"'{path}' names the class '{repeated[0]}' twice; it should have one class per line.")
    return names


def class_names(base: Path, classes: Sequence[str] | str) -> list[str]:
    """Returns the names of dataset.classes: a list, or a file relative to `base`; see `read_class_names`."""
    return read_class_names(base / classes) if isinstance(classes, str) else [str(name) for name in classes]


def read_text_lines(path: Path) -> list[str]:
    """Returns the lines of a text file that are not empty. Raises InputError if it is not UTF-8 text."""
    try:
        return [line for line in path.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is not a text file in UTF-8 ({error.reason} at byte {error.start}).") from error


def need_root(root: str | None, name: str) -> Path:
    """Returns dataset.root as a path.

    Raises InputError if it is not set or does not exist. `name`: of the data set format.
    """
    if root is None:
        raise InputError(f"Data set '{name}' is on disk: set its folder with dataset.root=<path>.")
    return need_folder(root, f"data set '{name}'")
