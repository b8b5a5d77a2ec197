"""Finds the images that a source names: files, folders, patterns, lists, videos and cameras."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from spine.data.image_files import (
    IMAGE_SUFFIXES,
    UNREADABLE_SUFFIXES,
    format_names,
    is_hidden,
    log_warning,
    read_text_lines,
)
from spine.errors import InputError, nearest

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp", ".ogv")
MAGIC = ("*", "?", "[")
KINDS = (
    "an image, a folder, a pattern such as photos/*.jpg, a text file with one path per line, a video or the number of a camera"
)


@dataclass(frozen=True)
class ImageFile:
    """One image file of a source. `name`: its path relative to the source, with `/`. `index`: its place in the source."""

    index: int
    path: str
    name: str


@dataclass(frozen=True)
class Video:
    """A video file, the address of a stream, or a camera by its number."""

    source: str | int

    @property
    def name(self) -> str:
        """The name of the file, or camera<number>."""
        return f"camera{self.source}" if isinstance(self.source, int) else Path(self.source).name

    @property
    def is_endless(self) -> bool:
        """Whether it ends only when the user stops it."""
        return isinstance(self.source, int) or "://" in self.source

    def open(self) -> cv2.VideoCapture:
        """Opens the video. Raises InputError if it cannot be opened."""
        capture = cv2.VideoCapture(self.source)
        if not capture.isOpened():
            what = f"Camera {self.source}" if isinstance(self.source, int) else f"The video '{self.source}'"
            raise InputError(f"{what} cannot be opened. Give another source: {KINDS}.")
        return capture

    def frames(self, limit: int | None = None) -> Iterator[np.ndarray]:
        """Yields the frames (H, W, 3) uint8 RGB, at most `limit`. Raises InputError if it cannot be opened."""
        capture = self.open()
        try:
            count = 0
            while limit is None or count < limit:
                found, frame = capture.read()
                if not found:
                    return
                count += 1
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()

    def rate_and_length(self) -> tuple[float, int | None]:
        """The frames per second (25 if unknown), and the number of frames if it is known."""
        capture = self.open()
        rate, length = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        return rate if 0 < rate < 1000 else 25.0, length if length > 0 and not self.is_endless else None


Source = Sequence[ImageFile] | Video


def find_source(given: str | int | Path | Sequence[str | Path], leave_out: str | Path | None = None) -> Source:
    """Returns the files, or the video, that a source names.

    `given`: KINDS, or a list of images, folders and patterns. Hidden files and folders are left out. `leave_out`: a folder whose files
    are no images of the source, that of the predictions. Raises InputError if there is nothing of that name, or no image in it.
    """
    if isinstance(given, int | str | Path):
        text = os.path.expanduser(str(given))
        if text.isdigit() and not os.path.exists(text):
            return Video(int(text))
        if "://" in text or (os.path.isfile(text) and text.lower().endswith(VIDEO_SUFFIXES)):
            return Video(text)
        is_list = os.path.isfile(text) and text.lower().endswith(".txt")
        paths, base = _listed(Path(text)) if is_list else _images(text)
    else:
        paths = [path for each in given for path in _images(os.path.expanduser(str(each)))[0]]
        base = _common_folder(paths)
    if leave_out is not None:
        inside = os.path.join(os.path.abspath(leave_out), "")
        paths = [path for path in paths if not os.path.abspath(path).startswith(inside)]
        if not paths:
            raise InputError(
                f"All images of '{given}' are in '{leave_out}', the folder of the predictions. Give another one with out=."
            )
    return _numbered(paths, base)


Found = tuple[list[str], str]  # paths of images, and the folder that their names are relative to


def _numbered(paths: Sequence[str], base: str) -> list[ImageFile]:
    names = [Path(os.path.relpath(path, base)).as_posix() for path in paths]
    return [ImageFile(i, path, name) for i, (path, name) in enumerate(zip(paths, names, strict=True))]


def _images(text: str) -> Found:
    """Returns the images of a file, a folder or a pattern. Raises InputError if there are none."""
    if os.path.isfile(text):
        return [text], os.path.dirname(text) or "."
    if os.path.isdir(text):
        return _in_folder(text), text
    if any(character in text for character in MAGIC):
        return _matching(text)
    parent = os.path.dirname(text) or "."
    beside = sorted(os.listdir(parent)) if os.path.isdir(parent) else []
    raise InputError(f"There is no '{text}'.{nearest(os.path.basename(text), beside)} source is {KINDS}.")


def _in_folder(folder: str) -> list[str]:
    """Returns the images of a folder and its subfolders, sorted folder by folder."""
    found, others = [], []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        shown = sorted(name for name in names if not is_hidden(name))
        found += [os.path.join(place, name) for name in shown if name.lower().endswith(IMAGE_SUFFIXES)]
        others += [os.path.splitext(name)[1].lower() for name in shown]
    unread = [suffix for suffix in others if suffix in (*UNREADABLE_SUFFIXES, *VIDEO_SUFFIXES)]
    if unread:
        log_warning(
            f"{len(unread)} files in '{folder}' are not read ({format_names(sorted(set(unread)))}): convert images to JPEG or PNG, "
            f"and give videos one by one."
        )
    if not found:
        raise InputError(f"Folder '{folder}' has no image ({', '.join(IMAGE_SUFFIXES[:5])}, ...).")
    return found


def _matching(pattern: str) -> Found:
    """Returns the images that match a pattern, in which ** stands for any number of folders."""
    matches = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    found = [path for path in matches if path.lower().endswith(IMAGE_SUFFIXES)]
    if not found:
        others = f": {format_names(map(os.path.basename, matches))} are none" if matches else ""
        raise InputError(f"No image matches '{pattern}'{others}.")
    fixed: list[str] = []
    for part in Path(pattern).parts[:-1]:
        if any(character in part for character in MAGIC):
            break
        fixed.append(part)
    return found, os.path.join(*fixed) if fixed else "."


def _listed(path: Path) -> Found:
    """Returns the images that a text file lists, relative to its folder or to the current one. Raises InputError if there are none."""
    lines = [line.strip() for line in read_text_lines(path)]
    if not lines:
        raise InputError(f"'{path}' lists no image; it should have one path per line.")
    beside = [str(path.parent / os.path.expanduser(line)) for line in lines]  # an absolute path stays as it is
    paths = [near if os.path.exists(near) or not os.path.exists(line) else line for near, line in zip(beside, lines, strict=True)]
    if repeated := len(paths) - len(set(paths)):
        log_warning(f"{repeated} lines of '{path}' name a file again; each file is read once.")
    return list(dict.fromkeys(paths)), _common_folder(paths)


def _common_folder(paths: Sequence[str]) -> str:
    folders = [os.path.dirname(os.path.abspath(path)) for path in paths]
    return os.path.commonpath(folders) if folders else "."
