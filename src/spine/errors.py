"""Errors that users see as a message without a traceback."""

from __future__ import annotations

import signal
from difflib import get_close_matches

PREEMPTION_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)  # of SLURM and submitit, before they end a job
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *PREEMPTION_SIGNALS)  # those that end a run after its step


class InputError(ValueError):
    """A mistake in the user's input.

    In one short paragraph, the message gives the value, the allowed values and what to do.
    """


class UnreadableFileError(InputError):
    """A file of a sample is missing or broken. With dataset.on_error=skip, the sample is replaced."""

    def __init__(self, message: str, path: str = "", kind: str = "unreadable"):
        """`path`: of the file; empty if it is only known to be in the message, as for errors that a worker sent.
        `kind`: what the doctor reports, a key of `spine.data.checks.kinds.KINDS`.
        """
        super().__init__(message)
        self.path, self.kind = path, kind

    def __reduce__(self) -> tuple[type[UnreadableFileError], tuple[str, str, str]]:
        return type(self), (str(self), self.path, self.kind)  # workers send it to the main process


def nearest(word: str, choices: list[str], prefix: str = "") -> str:
    """Returns the question " Did you mean '<prefix><choice>'?" with the closest choice.

    Returns an empty string if no choice is close.
    """
    close = get_close_matches(word, choices, n=1, cutoff=0.5)
    return f" Did you mean '{prefix}{close[0]}'?" if close else ""


class RunStopped(SystemExit):
    """A signal ended the run.

    A SystemExit, so that neither Lightning nor a sweep of Hydra treats it as a failure.
    """

    def __init__(self, signal_number: int, message: str | None = None):
        """`message`: for the user, where the run stopped and how to resume it.

        By default it only names the signal.
        """
        super().__init__(128 + signal_number)
        self.signal_number = signal_number
        name = "Ctrl-C" if signal_number == signal.SIGINT else signal.Signals(signal_number).name
        self.message = message or f"Stopped by {name}"


def find_stop(error: BaseException | None) -> RunStopped | None:
    """Returns the RunStopped among an error and its causes, or None.

    Lightning's cleanup may fail when it is interrupted. Its error then has the RunStopped as its
    context.
    """
    while error is not None and not isinstance(error, RunStopped):
        error = error.__cause__ or error.__context__
    return error
