"""Downloads published weight files into a cache."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlparse

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from spine.errors import InputError

CHUNK = 1 << 20


def cache_folder() -> Path:
    """Where fetched files are kept: SPINE_CACHE, else ~/.cache/spine."""
    return Path(os.environ.get("SPINE_CACHE") or Path.home() / ".cache" / "spine")


def cached_path(address: str) -> Path:
    """Where the file of an address is kept."""
    path = urlparse(address).path.strip("/")
    owner, _, revision = path.partition("/resolve/")  # of a hub, where all files have one name
    return cache_folder() / "--".join([*(owner.split("/") if revision else ()), Path(path).name])


def fetch(address: str, sha256: str | None = None) -> Path:
    """The file of an address, from the cache or fetched into it; what an earlier try left is gone on with.

    Several processes may ask at once: one fetches, the others wait for it. `sha256` may be the beginning of the hash; a file without one
    is checked by its size. InputError where the file cannot be reached or is not the published one.
    """
    target = cached_path(address)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(target)
    while not target.is_file():
        with part.open("ab") as file:  # who holds its lock fetches; the lock ends with the process
            _lock(file, target.name)
            if not _lies_at(file, part):
                continue  # another process has finished or deleted it meanwhile
            if target.is_file():
                part.unlink()  # made a moment after another process had finished
            else:
                _fetch(address, part, target, sha256)
    return target


def _lies_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is still the one of that path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: BinaryIO, name: str) -> None:
    """Waits until no other process of this machine holds the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"Another process is fetching {name}; waiting for it.", flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)


def part_path(target: Path) -> Path:
    """Where a file grows. Locks hold on one machine, so that machines that share a folder have a part each."""
    return target.with_name(f"{target.name}.{socket.gethostname()}.part")


def _fetch(address: str, part: Path, target: Path, sha256: str | None) -> None:
    try:
        _continue(address, part)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        if part.stat().st_size == 0:
            part.unlink()
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"{address} could not be fetched ({reason}). What has arrived is kept and gone on with next time; without a network put the "
            f"file at {target}, or give the path of a file as weights."
        ) from error
    if sha256:
        found = _hash(part)
        if not found.startswith(sha256):
            part.unlink()
            raise InputError(
                f"What came from {address} is not the published file, and is deleted: its SHA-256 begins with {found[: len(sha256)]}, "
                f"published is {sha256}."
            )
    part.replace(target)


def _continue(address: str, part: Path) -> None:
    """Fetches what is still missing of a file, with a progress bar; OSError where its size is not the server's in the end."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "spine", **({"Range": f"bytes={have}-"} if have else {})})
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # nothing lies behind what is there: it is whole if the server's file is as long, else another file
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            return
        os.truncate(part, 0)
        return _continue(address, part)
    with answer:
        if answer.status != 206:  # the server starts from the beginning
            have = 0
        length = answer.headers.get("Content-Length")
        whole = have + int(length) if length else None
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with part.open("ab" if have else "wb") as file, Progress(*columns) as progress:
            task = progress.add_task(part.stem, total=whole, completed=have)
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
    size = part.stat().st_size
    if whole is not None and size < whole:
        raise OSError(f"the connection ended after {size} of {whole} bytes")
    if whole is not None and size > whole:
        os.truncate(part, 0)
        raise OSError(f"{size} bytes arrived instead of {whole}; they are deleted")


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
