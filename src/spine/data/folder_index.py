"""Lists the images in a folder and all its subfolders, and remembers the list of a large folder.

The list of a folder with many files is kept in the user's cache, SPINE_CACHE or ~/.cache/spine. It is valid as long as
no folder has another modification time, which changes when a file is added, removed or renamed. Of several processes
that need the list, one reads the folders and the others wait for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from spine.data.image_files import (
    IMAGE_SUFFIXES,
    UNREADABLE_SUFFIXES,
    PackedNames,
    format_names,
    is_hidden,
    log_warning,
)
from spine.user_cache import cache_folder, locked

MIN_REMEMBERED = 20_000  # images; fewer are listed in a few hundredths of a second
SETTLED_SECONDS = 2.0  # a folder that was changed later than this before its reading may change again at the same time
VERSION = 1  # of the files in the cache


@dataclass(frozen=True, eq=False)
class FolderIndex:
    """The F folders in a folder, itself included, and their N images. Hidden files and folders are left out."""

    folders: PackedNames  # (F,) relative paths, "" for the folder itself; each before its subfolders, which are sorted
    times: np.ndarray  # (F,) int64: modification times in nanoseconds
    starts: np.ndarray  # (F + 1,) int64: the images of folder f are names[starts[f] : starts[f + 1]], sorted
    names: PackedNames  # (N,) names of the images in their folders
    unreadable: np.ndarray  # (len(UNREADABLE_SUFFIXES),) int64: number of images of each format that is not read

    def counts(self) -> dict[str, int]:
        """Returns the number of images directly in each folder, by its relative path."""
        return {self.folders[i]: int(self.starts[i + 1] - self.starts[i]) for i in range(len(self.folders))}


def warn_of_unreadable_files(unreadable: np.ndarray, folder: Path) -> None:
    """Logs a warning if there are images of a format that is not read.

    `unreadable`: see `FolderIndex`. `folder`: for the message.
    """
    if unreadable.any():
        suffixes = [suffix for suffix, count in zip(UNREADABLE_SUFFIXES, unreadable, strict=True) if count]
        log_warning(
            f"{unreadable.sum()} images in '{folder}' are not read ({format_names(sorted(suffixes))}): "
            f"convert them to JPEG or PNG."
        )


def index_folder(folder: Path) -> FolderIndex:
    """Returns the images in a folder at any depth, from the cache if it is valid."""
    file = cache_folder() / "folders" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.safetensors"
    remembered = _read(file, folder)
    if remembered is not None:
        return remembered
    started, scan = time.time_ns(), _Scan(folder)
    with contextlib.ExitStack() as stack:
        for _ in scan:
            if not scan.large and scan.count >= MIN_REMEMBERED:
                scan.large = True
                with contextlib.suppress(OSError):  # a cache that cannot be written
                    file.parent.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(locked(file.with_suffix(".lock")))
                remembered = _read(file, folder)  # another process may have written it meanwhile
                if remembered is not None:
                    return remembered
        index = scan.finish()
        if scan.large and started - int(index.times.max()) > SETTLED_SECONDS * 1e9:
            _write(file, index)
    return index


class _Scan:
    """Reads the folders in a folder one after the other."""

    def __init__(self, folder: Path):
        self.folder, self.count, self.large = folder, 0, False
        self.folders: list[str] = []
        self.times: list[int] = []
        self.counts: list[int] = []
        self.blocks, self.lengths = bytearray(), list[np.ndarray]()
        self.unreadable = np.zeros(len(UNREADABLE_SUFFIXES), np.int64)

    def __iter__(self) -> Iterator[None]:
        """Reads one folder for each item."""
        waiting = [("", frozenset[tuple[int, int]]())]  # relative path, and the folders that it is in
        while waiting:
            relative, above = waiting.pop()
            path = self.folder / relative
            status = path.stat()  # before its entries are read: a later change has another time
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                continue  # a link to a folder that it is in
            names, inner = self._read(path)
            self.folders.append(relative)
            self.times.append(status.st_mtime_ns)
            self.counts.append(len(names))
            self.count += len(names)
            encoded = [os.fsencode(name) for name in names]
            self.blocks += b"".join(encoded)
            self.lengths.append(np.fromiter(map(len, encoded), np.int32, len(encoded)))
            waiting += [(f"{relative}/{name}" if relative else name, above | {identity}) for name in reversed(inner)]
            yield

    def _read(self, path: Path) -> tuple[list[str], list[str]]:
        """Returns the names of the images and of the folders directly in a folder, sorted."""
        names, inner = [], []
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if is_hidden(name):
                    continue
                if entry.is_dir():
                    inner.append(name)
                elif name.lower().endswith(IMAGE_SUFFIXES):
                    names.append(name)
                elif (suffix := os.path.splitext(name)[1].lower()) in UNREADABLE_SUFFIXES:
                    self.unreadable[UNREADABLE_SUFFIXES.index(suffix)] += 1
        return sorted(names), sorted(inner)

    def finish(self) -> FolderIndex:
        """Returns the index of all folders that were read."""
        names = PackedNames.from_block(np.frombuffer(self.blocks, np.uint8), np.concatenate(self.lengths))
        starts = np.cumsum([0, *self.counts])
        return FolderIndex(PackedNames(self.folders), np.array(self.times, np.int64), starts, names, self.unreadable)


def _read(file: Path, folder: Path) -> FolderIndex | None:
    """Returns the index in a file of the cache, or None if there is none or a folder has changed."""
    try:
        arrays = load_file(file)
        if int(arrays["version"][0]) != VERSION:
            return None
        folders = PackedNames.from_block(arrays["folders"], arrays["folder_lengths"])
        for i, changed in enumerate(arrays["times"].tolist()):
            if os.stat(folder / folders[i]).st_mtime_ns != changed:
                return None
        names = PackedNames.from_block(arrays["names"], arrays["name_lengths"])
        return FolderIndex(folders, arrays["times"], arrays["starts"], names, arrays["unreadable"])
    except (OSError, SafetensorError, KeyError):  # of an earlier version, damaged, or a folder was removed
        return None


def _write(file: Path, index: FolderIndex) -> None:
    """Writes the file of an index in one step.

    A cache that cannot be written is no error: the folder is read again next time.
    """
    arrays = {
        "version": np.array([VERSION]),
        "folders": index.folders.block,
        "folder_lengths": np.diff(index.folders.ends).astype(np.int32),
        "times": index.times,
        "starts": index.starts,
        "names": index.names.block,
        "name_lengths": np.diff(index.names.ends).astype(np.uint16),  # file systems allow 255 bytes
        "unreadable": index.unreadable,
    }
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, part)
        part.replace(file)
    except (OSError, SafetensorError) as error:
        message = f"The list of files is not remembered: '{file}' cannot be written ({error})."
        logging.getLogger("spine.data").info(message)
        with contextlib.suppress(OSError):
            part.unlink()
