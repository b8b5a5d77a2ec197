"""Messages of a run: to the screen, and with full traces of failures into the run folder."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SPINE = logging.getLogger("spine")
LINE = "[%(asctime)s] [%(levelname)s] %(message)s"


class ScreenHandler(logging.Handler):
    """Prints messages to what is standard output now: a progress bar puts its own stream in that place while it is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one message; warnings and errors to standard error."""
        stream = sys.stdout if record.levelno < logging.WARNING else sys.stderr
        print(self.format(record), file=stream, flush=True)


def process_rank() -> int:
    """The rank of this process before torch.distributed knows it: as torchrun, SLURM or Lightning's launcher set it."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def show_messages() -> None:
    """Shows what the library logs: everything from INFO on of the first process, warnings of the others."""
    if not SPINE.handlers:
        SPINE.addHandler(ScreenHandler())
    SPINE.setLevel(logging.INFO if process_rank() == 0 else logging.WARNING)
    SPINE.propagate = False
    logging.captureWarnings(True)


@contextmanager
def kept_in(path: Path) -> Iterator[None]:
    """Appends all messages and warnings to the file at `path`, and the full trace of an error that leaves the block."""
    if process_rank() > 0:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter(LINE))
    loggers = (SPINE, logging.getLogger())  # spine's messages do not reach the root logger, warnings of libraries do
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    except BaseException as error:
        if not isinstance(error, SystemExit):
            record = logging.LogRecord(
                "spine", logging.ERROR, __file__, 0, "The run failed.", None, (type(error), error, error.__traceback__)
            )
            handler.handle(record)
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
