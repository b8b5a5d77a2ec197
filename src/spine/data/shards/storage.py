"""Reads ranges of shards: local files, and objects of a store through fsspec."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from spine.errors import InputError, UnreadableFileError
from spine.user_cache import locked

log = logging.getLogger("spine.data")
OPEN_FILES = 64  # shards that a process keeps open
DELAYS = (0.5, 1.0, 2.0, 4.0)  # seconds before a request to a store is repeated
READERS = 4  # shards that a process copies ahead at the same time
AHEAD = "spine: copies of shards"  # name of the threads
Result = TypeVar("Result")


def is_url(root: str) -> bool:
    """Whether a root is an address of a store, such as s3://bucket/folder, and not a folder."""
    return "://" in root


class Storage(Protocol):
    """Where the shards are."""

    def read(self, name: str, start: int, size: int) -> np.ndarray:
        """Returns `size` bytes (N,) uint8 of a shard from `start`. Raises UnreadableFileError if it does not have them."""
        ...


class LocalFiles:
    """Shards in a folder. Reading at an offset needs no position in the file, so that processes may share open files."""

    def __init__(self, folder: str | Path):
        self.folder = str(folder)
        self.open: OrderedDict[str, int] = OrderedDict()  # file descriptors

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "open": OrderedDict()}  # another process opens its own

    def __del__(self) -> None:
        for descriptor in self.open.values():
            os.close(descriptor)

    def read(self, name: str, start: int, size: int) -> np.ndarray:
        """Returns a range of a shard."""
        data = os.pread(self._descriptor(name), size, start)
        if len(data) < size:
            path = os.path.join(self.folder, name)
            raise UnreadableFileError(short_message(path, start, size, len(data)), path, "changed_shard")
        return np.frombuffer(data, np.uint8)

    def _descriptor(self, name: str) -> int:
        if (found := self.open.get(name)) is not None:
            return found
        path = os.path.join(self.folder, name)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise UnreadableFileError(missing_message(path), path, "missing_file") from None
        self.open[name] = descriptor
        if len(self.open) > OPEN_FILES:
            os.close(self.open.popitem(last=False)[1])
        return descriptor


class Store:
    """Shards in an object store, or in anything else that fsspec opens. A failed request is repeated a few times."""

    def __init__(self, url: str):
        """Raises InputError if fsspec, or its package for this kind of store, is not installed."""
        self.url = url.rstrip("/")
        self._opened: tuple[int, Any] | None = None  # process id, file system: a fork cannot use that of its parent
        _ = self.files

    def __getstate__(self) -> dict[str, object]:
        return {"url": self.url, "_opened": None}

    @property
    def files(self) -> Any:
        """The file system of fsspec, opened in this process."""
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                from fsspec.core import url_to_fs

                new = self._opened is not None
                self._opened = os.getpid(), url_to_fs(self.url, **({"skip_instance_cache": True} if new else {}))[0]
            except ImportError as error:
                raise InputError(
                    f"'{self.url}' needs a package that is not installed ({error}): pip install -e .[fsspec], and the package of the "
                    f"store, such as s3fs."
                ) from error
            except ValueError as error:
                raise InputError(
                    f"'{self.url}' cannot be opened ({error}). Give a folder, or an address such as s3://<bucket>."
                ) from error
        return self._opened[1]

    def read(self, name: str, start: int, size: int) -> np.ndarray:
        """Returns a range of a shard."""
        data = self._request(name, lambda path: self.files.cat_file(path, start=start, end=start + size))
        if len(data) < size:
            address = f"{self.url}/{name}"
            raise UnreadableFileError(short_message(address, start, size, len(data)), address, "changed_shard")
        return np.frombuffer(data, np.uint8)

    def read_whole(self, name: str) -> bytes:
        """Returns the content of a small file."""
        return self._request(name, lambda path: bytes(self.files.cat_file(path)))

    def copy(self, name: str, target: Path) -> None:
        """Copies a file into a local one."""
        self._request(name, lambda path: self.files.get_file(path, str(target)))

    def sizes(self, pattern: str) -> dict[str, int]:
        """Returns the names, relative to the root, and the sizes of the files that a pattern with * matches, sorted."""
        found = self._request(pattern, lambda path: self.files.glob(path, detail=True))
        base = self.files._strip_protocol(self.url).rstrip("/")
        return {path.removeprefix(base).lstrip("/"): int(info["size"]) for path, info in sorted(found.items())}

    def _request(self, name: str, request: Callable[[str], Result]) -> Result:
        """Makes a request, again after a while if it fails. Raises UnreadableFileError for a missing file."""
        address = f"{self.url}/{name}"
        for delay in (*DELAYS, None):
            try:
                return request(address)
            except FileNotFoundError:
                raise UnreadableFileError(missing_message(address), address, "missing_file") from None
            except Exception as error:  # packages of stores raise errors of their own for a lost connection
                if delay is None or isinstance(error, PermissionError | InputError):
                    raise InputError(
                        f"'{address}' cannot be read ({type(error).__name__}: {error}). Check the address, the access rights "
                        f"and the network."
                    ) from error
                log.info("'%s' could not be read (%s); trying again in %g s.", address, type(error).__name__, delay)
                time.sleep(delay)
        raise AssertionError("unreachable")


class CopiedShards:
    """Shards of a store that are copied to a local folder as a whole when they are first read.

    All processes of a machine share the folder. The shards that were copied first are removed beyond `limit` bytes.
    """

    def __init__(self, store: Store, folder: Path, limit: int):
        self.store, self.folder, self.limit = store, folder, limit
        self.local = LocalFiles(folder)
        self.few_at_once = threading.Semaphore(READERS)
        folder.mkdir(parents=True, exist_ok=True)

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "few_at_once"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, few_at_once=threading.Semaphore(READERS))

    def read(self, name: str, start: int, size: int) -> np.ndarray:
        """Returns a range of a shard."""
        while True:
            if name not in self.local.open:
                self.fetch(name)
            try:
                return self.local.read(name, start, size)
            except UnreadableFileError:
                if name in self.local.open:  # otherwise another process removed the copy before it was opened
                    raise

    def fetch_ahead(self, names: list[str]) -> None:
        """Copies shards in the background."""
        threading.Thread(target=self._fetch_all, args=(names,), name=AHEAD, daemon=True).start()

    def _fetch_all(self, names: list[str]) -> None:
        for name in names:
            with self.few_at_once, suppress(InputError):  # the error comes again when the shard is read
                self.fetch(name)

    def fetch(self, name: str) -> None:
        """Copies a shard if it is not there. One process copies it, and the others wait."""
        target = self.folder / name
        if target.is_file():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f"{target.name}.lock")):
            if not target.is_file():
                part = target.with_name(f"{target.name}.{socket.gethostname()}.part")  # locks work within one machine only
                self.store.copy(name, part)
                os.replace(part, target)
                self._remove_oldest(target)

    def _remove_oldest(self, newest: Path) -> None:
        """Removes the oldest shards until `limit` is kept. Processes that have them open can still read them."""
        files = [(path.stat().st_mtime, path.stat().st_size, path) for path in self.folder.rglob("*.tar") if path != newest]
        total = sum(size for _, size, _ in files) + newest.stat().st_size
        for _, size, path in sorted(files):
            if total <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= size


def replace_folder(part: Path, target: Path) -> None:
    """Renames a complete folder. If another process was first, its folder stays."""
    try:
        part.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(part)


def missing_message(path: str) -> str:
    """Message for a shard that does not exist."""
    return f"Shard '{path}' is missing; the index lists it. Copy it again, or pack the data set again."


def short_message(path: str, start: int, size: int, found: int) -> str:
    """Message for a shard that ends within a sample."""
    return (
        f"Shard '{path}' is truncated: the index has a sample at bytes {start} to {start + size}, and only {found} of them are there. "
        f"Copy it again, or pack the data set again."
    )
