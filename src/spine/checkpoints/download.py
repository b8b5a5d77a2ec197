"""Downloads published weight files into a cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import logging
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlparse

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from spine.errors import InputError
from spine.user_cache import cache_folder

log = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds


def cached_path(address: str) -> Path:
    """Returns the path of an address's file in the cache."""
    path = urlparse(address).path.strip("/")
    owner, _, revision = path.partition("/resolve/")  # Hugging Face: the files of all repositories have the same name
    return cache_folder() / "--".join([*(owner.split("/") if revision else ()), Path(path).name])


def part_path(target: Path) -> Path:
    """Returns the path of an incomplete download.

    File locks work within one machine only, so machines that share a cache folder have separate parts.
    """
    return target.with_name(f"{target.name}.{socket.gethostname()}.part")


def fetch(address: str, sha256: str | None = None) -> Path:
    """Returns the file of an address from the cache. Downloads it if needed and resumes incomplete downloads.

    If several processes need the same file, one downloads it and the others wait. `sha256`: the hash
    of the file, or its first digits; without it, only the size is checked. Raises InputError if the
    file cannot be downloaded or is not the published one.
    """
    target = cached_path(address)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(target)
    while not target.is_file():
        with part.open("ab") as file:  # the process that holds the lock downloads; the lock ends with the process
            _lock(file, target.name)
            if not _is_at(file, part):
                continue  # another process has finished or deleted the part in the meantime
            if target.is_file():
                part.unlink()  # this process created it just after another one had finished
            else:
                _download_verified(address, part, target, sha256)
    return target


def _lock(file: BinaryIO, name: str) -> None:
    """Locks a file. Waits until no other process of this machine holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("Another process is downloading %s; waiting for it.", name)
        fcntl.flock(file, fcntl.LOCK_EX)


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _download_verified(address: str, part: Path, target: Path, sha256: str | None) -> None:
    """Completes `part`, checks its hash and renames it to `target`. Raises InputError if either fails."""
    try:
        _download(address, part)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        if part.stat().st_size == 0:
            part.unlink()
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"{address} could not be downloaded ({reason}). The bytes received so far are kept, and the next attempt resumes "
            f"the download. Without a network, put the file at {target}, or give the path of a file as weights."
        ) from error
    if sha256:
        found = _hash(part)
        if not found.startswith(sha256):
            part.unlink()
            raise InputError(
                f"The download of {address} is not the published file and was deleted: its SHA-256 starts with "
                f"{found[: len(sha256)]}, the published one with {sha256}."
            )
    part.replace(target)


def _download(address: str, part: Path) -> None:
    """Downloads the missing bytes of a file and shows the progress. Raises OSError if the final size is not the server's."""
    present = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "spine", **({"Range": f"bytes={present}-"} if present else {})}
    try:
        response = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not present:
            raise
        # The server has no bytes after those present: the part is complete if the sizes are equal, else it is of another file.
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(present):
            return
        os.truncate(part, 0)
        return _download(address, part)
    with response:
        if response.status != 206:  # the server ignores the range and sends the whole file
            present = 0
        length = response.headers.get("Content-Length")
        total = present + int(length) if length else None
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with part.open("ab" if present else "wb") as file, Progress(*columns) as progress:
            task = progress.add_task(part.stem, total=total, completed=present)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
    _check_size(part, total)


def _check_size(part: Path, total: int | None) -> None:
    """Raises OSError if a part is not of the size that the server reported. A part that is too large is emptied."""
    size = part.stat().st_size
    if total is not None and size < total:
        raise OSError(f"the connection ended after {size} of {total} bytes")
    if total is not None and size > total:
        os.truncate(part, 0)
        raise OSError(f"received {size} bytes instead of {total}; they were deleted")


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
