"""Runs a Hydra main function: user mistakes end in one sentence, signals in where the run stands, a sweep in one table."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from spine import console, report
from spine.config import messages, overrides, resolving  # noqa: F401  (registers the run_id resolver)
from spine.errors import RunStopped


def command_line(main: Callable[[], Any]) -> None:
    """Runs a Hydra main function and exits with 0, with 1 after an error, with 130 after Ctrl-C or with 143 after SIGTERM."""
    traced = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, and they are printed here
    SweepTable.traced = traced
    console.show_messages()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    sys.argv[1:] = overrides.quote_for_hydra(sys.argv[1:])  # in place: the processes of ddp are started with it
    try:
        main()
    except RunStopped as stop:
        if console.process_rank() == 0:
            print(f"\n{stop.message}", file=sys.stderr)
        sys.exit(stop.code)
    except Exception as error:
        sentence = messages.sentence(error)
        if traced or sentence is None:
            raise
        if console.process_rank() == 0:
            print(f"\n{sentence}\n(HYDRA_FULL_ERROR=1 shows the full trace.)", file=sys.stderr)
        sys.exit(1)
    finally:
        SweepTable.show()


def _stop(number: int, frame: FrameType | None) -> None:
    """Ends the process where no training is under way; a training takes the signals over."""
    raise RunStopped(number)


class SweepTable(Callback):
    """Remembers where a sweep writes, and prints one table of its runs at the end."""

    folder: Path | None = None
    traced = False  # keep the traces of failed jobs, for HYDRA_FULL_ERROR=1

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before the first job."""
        SweepTable.folder = Path(config.hydra.sweep.dir)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Frees the memory of a failed job: Hydra keeps its error to the end, and with it every tensor of its frames."""
        if weights := sys.modules.get("spine.weights"):
            weights.release()  # a file that was read and not loaded
        if job_return.status == JobStatus.FAILED and not self.traced:
            error: Any = job_return._return_value
            while isinstance(error, BaseException):
                error.__traceback__ = None
                error = error.__cause__ or error.__context__

    @classmethod
    def show(cls) -> None:
        """Prints it, where there was a sweep."""
        if cls.folder is None or console.process_rank() > 0:
            return
        report.sweep_table(cls.folder)
        cls.folder = None
