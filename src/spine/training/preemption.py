"""Hands a preempted run over to SLURM or submitit, so that it continues in another job.

SLURM sends a signal some time before it ends a job, if `#SBATCH --signal=USR1@90` or submitit asks
for one. The run then saves its state first, and is handed over last: both ways may end the process.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from spine.console import process_rank
from spine.errors import PREEMPTION_SIGNALS

log = logging.getLogger(__name__)
Handler = Callable[[int, FrameType | None], object]


def hand_over(number: int, requeue: bool) -> str:
    """Requeues the job of this process after a signal of SLURM or submitit. Returns a sentence for the user.

    In a task of submitit, its own handler does this, which ends the process with SystemExit.
    Otherwise, `requeue` asks for `scontrol requeue`. Only the first process does anything, and
    SIGTERM never requeues: `scancel` sends it too.
    """
    if number not in PREEMPTION_SIGNALS or process_rank() > 0:
        return ""
    if (handler := submitit_handler(number)) is not None:
        log.info("Handing the run over to submitit.")
        handler(number, None)
    if "SUBMITIT_EXECUTOR" in os.environ or not requeue:
        return ""
    return _requeue_in_slurm()


def submitit_handler(number: int) -> Handler | None:
    """Returns the handler that submitit has installed in this process for a signal, or None."""
    handler = signal.getsignal(number)
    owner = type(getattr(handler, "__self__", None)).__module__
    return handler if callable(handler) and owner.partition(".")[0] == "submitit" else None


@contextmanager
def deferred() -> Iterator[list[int]]:
    """Defers submitit's handling of a signal to the end of the block. Yields a list that gets the signal's number.

    Submitit requeues a job at once, before a process that this one started has saved its state.
    """
    received: list[int] = []
    handlers = {number: handler for number in PREEMPTION_SIGNALS if (handler := submitit_handler(number)) is not None}
    for number in handlers:
        signal.signal(number, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _requeue_in_slurm() -> str:
    """Calls `scontrol requeue` for the job of this process. Returns a sentence for the user."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return "It was not requeued: this process is not in a SLURM job (SLURM_JOB_ID is not set)."
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return f"SLURM job {job} was not requeued: there is no command 'scontrol' on PATH."
    except subprocess.TimeoutExpired:
        return f"SLURM job {job} was not requeued: 'scontrol requeue {job}' gave no answer in 60 seconds."
    if done.returncode != 0:
        return f"SLURM job {job} was not requeued: 'scontrol requeue {job}' failed ({' '.join(done.stderr.split())})."
    return f"SLURM job {job} was requeued, and continues this run."
