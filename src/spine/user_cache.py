"""The folder in which spine keeps files of the user between runs: downloads, lists of files, indexes and copies of shards."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """Returns the folder: SPINE_CACHE, by default ~/.cache/spine. It may not exist."""
    return Path(os.environ.get("SPINE_CACHE") or Path.home() / ".cache" / "spine")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A context in which no other process of this machine is in a context of the same lock file.

    Raises OSError if the file cannot be created or locked.
    """
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked in the meantime has the file open too
