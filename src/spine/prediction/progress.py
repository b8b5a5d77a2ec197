"""The progress of predictions: a bar on a terminal, a line each minute otherwise."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 60.0


class PredictionProgress:
    """Shows how many images are done, and images per second. A context: the bar is removed at its end."""

    def __init__(self, total: int | None, processes: int = 1, shown: bool = True):
        """`total`: number of images of this process, if it is known. `processes`: as many do the same. `shown`: False for no output."""
        self.total, self.processes = total, processes
        self.done, self.start = 0, time.perf_counter()
        self.last_line = self.start
        self.lines = shown and not Console().is_terminal
        self.bar: Progress | None = None
        self.task = TaskID(0)
        if shown and not self.lines:
            columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}")]
            self.bar = Progress(*columns, TimeRemainingColumn(), transient=True)
            self.task = self.bar.add_task("", total=self._of_all(total), speed="")

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    @property
    def speed(self) -> float:
        """Images per second of all processes, since the start."""
        return self.done * self.processes / max(time.perf_counter() - self.start, 1e-9)

    def advance(self, images: int) -> None:
        """Counts images that are done."""
        self.done += images
        if self.bar is not None:
            self.bar.update(self.task, completed=self._of_all(self.done), speed=f"{self.speed:.3g} images/s")
        now = time.perf_counter()
        if self.lines and now - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = now
            of_total = f"/{self._of_all(self.total)}" if self.total is not None else ""
            log.info("%s%s images  %.3g images/s", self._of_all(self.done), of_total, self.speed)

    def _of_all(self, own: int | None) -> int | None:
        return None if own is None else own * self.processes
