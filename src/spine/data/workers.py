"""How many processes load data, and what each of them does when it starts."""

from __future__ import annotations

import os
import signal

from spine.errors import STOP_SIGNALS

MOST_WORKERS = 16  # that are chosen automatically


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_workers(requested: int | None, processes: int = 1, accelerated: bool = True) -> int:
    """Returns the number of workers of a loader.

    `requested`: at most the cores of this process are used; -1 for one per core; None for a number that fits the cores. With an
    accelerator (`accelerated`), that is one per core but one; on the CPU it is a quarter of the cores, because the network needs
    them. `processes`: those of the run on this machine, among which the cores are divided, except for a requested number.
    """
    cores = max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", processes)))
    if requested is None:
        return min(MOST_WORKERS, cores - 1 if accelerated else -(-(cores - 1) // 4))
    return min(requested, available_cores()) if requested >= 0 else cores


def prepare_worker(worker: int) -> None:
    """Prepares a process of a loader."""
    import cv2

    cv2.setNumThreads(0)  # one thread per worker: several processes with threads slow each other down
    for number in STOP_SIGNALS:  # signals go to all processes of the group; the main one stops the workers
        signal.signal(number, signal.SIG_IGN)
