"""Errors that are told to a person without a stack trace, and the words they use."""

from __future__ import annotations

import signal
from difflib import get_close_matches


class InputError(ValueError):
    """Something a person gave does not fit. The message says what was seen, what is allowed and what to do, in one short paragraph."""


def nearest(word: str, choices: list[str], prefix: str = "") -> str:
    """A question with the nearest of the choices, put behind `prefix`; nothing where none is near."""
    close = get_close_matches(word, choices, n=1, cutoff=0.5)
    return f" Did you mean '{prefix}{close[0]}'?" if close else ""


class RunStopped(SystemExit):
    """A signal ended the run. A SystemExit, so that neither Lightning nor a sweep of Hydra takes it for a failure."""

    def __init__(self, signal_number: int, message: str | None = None):
        """`message`: where the run stands and how it goes on, for the user; by default only which signal came."""
        super().__init__(128 + signal_number)
        self.signal_number = signal_number
        name = "Ctrl-C" if signal_number == signal.SIGINT else signal.Signals(signal_number).name
        self.message = message or f"Stopped by {name}"


def stop_behind(error: BaseException | None) -> RunStopped | None:
    """The RunStopped that `error` is, or that it came up in the handling of: Lightning's clean-up may fail where it is interrupted."""
    while error is not None and not isinstance(error, RunStopped):
        error = error.__cause__ or error.__context__
    return error
