"""Runs a Hydra main function: user mistakes end in one sentence, a sweep ends in one table."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from spine import report
from spine.config import messages, overrides, resolving  # noqa: F401  (registers the run_id resolver)


def command_line(main: Callable[[], Any]) -> None:
    """Runs a Hydra main. A person's mistake ends in one sentence; a sweep ends in one table, also where a job failed."""
    traced = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, and we tell them
    sys.argv[1:] = overrides.quote_for_hydra(sys.argv[1:])  # in place: the processes of ddp are started with it
    try:
        main()
    except Exception as error:
        told = messages.sentence(error)
        if traced or told is None:
            raise
        print(f"\n{told}\n(HYDRA_FULL_ERROR=1 shows the full trace.)", file=sys.stderr)
        sys.exit(1)
    finally:
        SweepTable.show()


class SweepTable(Callback):
    """Remembers where a sweep writes, and prints one table of its runs at the end."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before the first job."""
        SweepTable.folder = Path(config.hydra.sweep.dir)

    @classmethod
    def show(cls) -> None:
        """Prints it, where there was a sweep."""
        if cls.folder is None:
            return
        report.sweep_table(cls.folder)
        cls.folder = None
