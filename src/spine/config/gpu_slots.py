"""Gives each job of a parallel sweep its own GPUs."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from spine.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"
INTERVAL = 0.5  # seconds between attempts to get a GPU


@contextlib.contextmanager
def own_gpus(count: int | None, give_up: Callable[[], bool] = lambda: False) -> Iterator[dict[str, str]]:
    """Waits for `count` free GPUs, and returns the environment variable that shows only these to a process.

    A GPU is taken by a lock on a file in the temporary folder, which the jobs of all sweeps of a
    user on this machine share. The system releases the lock when the process ends for any reason.
    `count` None takes none and hides none. `give_up`: stops waiting when it returns true. Raises
    InputError if the machine has fewer GPUs.
    """
    if count is None:
        yield {}
        return
    names = _gpus()
    if count > len(names):
        raise InputError(
            f"sweep.gpus_per_job is {count}, but this machine has {len(names)}. Use at most {len(names)}, or null."
            if names
            else f"sweep.gpus_per_job is {count}, but torch finds no GPU here. Use null."
        )
    with contextlib.ExitStack() as locks:
        taken: list[str] = []
        while len(taken) < count and not give_up():
            taken = _take(names, count, locks)
            if len(taken) < count:
                time.sleep(INTERVAL)
        yield {VISIBLE: ",".join(taken)}


def _take(names: list[str], count: int, locks: contextlib.ExitStack) -> list[str]:
    """Locks `count` GPUs and returns their names. If fewer are free, locks none: two jobs could wait for each other."""
    taken: list[str] = []
    files = contextlib.ExitStack()
    for name in names:
        if len(taken) < count and (file := _locked(name)) is not None:
            files.enter_context(file)
            taken.append(name)
    if len(taken) < count:
        files.close()
        return []
    locks.push(files)
    return taken


def _locked(name: str) -> TextIO | None:
    import fcntl  # POSIX only

    file = (Path(tempfile.gettempdir()) / f"spine-{os.getuid()}-gpu-{name.replace('/', '_')}.lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _gpus() -> list[str]:
    """Returns the names of the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    if (visible := os.environ.get(VISIBLE)) is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
