"""Messages of a run, on the screen and in its log file."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SPINE_LOGGER = logging.getLogger("spine")
FILE_FORMAT = "[%(asctime)s] [%(levelname)s] %(message)s"


class ScreenHandler(logging.Handler):
    """Prints messages to the current sys.stdout or sys.stderr.

    A progress bar replaces both while it is drawn.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one message. Warnings and errors go to standard error."""
        stream = sys.stdout if record.levelno < logging.WARNING else sys.stderr
        print(self.format(record), file=stream, flush=True)


def process_rank() -> int:
    """Returns the rank that torchrun, SLURM or Lightning's launcher gave to this process.

    It is available before torch.distributed is initialized.
    """
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def show_messages() -> None:
    """Prints the messages of spine's loggers.

    The first process prints messages from level INFO, the others from level WARNING.
    """
    if not SPINE_LOGGER.handlers:
        SPINE_LOGGER.addHandler(ScreenHandler())
    SPINE_LOGGER.setLevel(logging.INFO if process_rank() == 0 else logging.WARNING)
    SPINE_LOGGER.propagate = False
    logging.captureWarnings(True)


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Appends all messages and warnings to a file, and the traceback of an error in the block.

    Only the first process writes.
    """
    if process_rank() > 0:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter(FILE_FORMAT))
    loggers = (
        SPINE_LOGGER,
        logging.getLogger(),
    )  # spine's logger does not propagate; the root logger gets the warnings of libraries
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    except BaseException as error:
        if not isinstance(error, SystemExit):
            handler.handle(_failure_record(error))
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def _failure_record(error: BaseException) -> logging.LogRecord:
    """Returns a log record with the traceback of `error`.

    It is for the file only: the command prints the message itself.
    """
    trace = (type(error), error, error.__traceback__)
    return logging.LogRecord("spine", logging.ERROR, __file__, 0, "The run failed.", None, trace)
