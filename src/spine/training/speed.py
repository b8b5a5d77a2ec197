"""Measures how fast training is, and how long it waits for data."""

from __future__ import annotations

import time
from typing import NamedTuple

import pytorch_lightning as pl

from spine.data.workers import available_cores

MOST_DATA_WAIT = 0.1  # fraction of the time; more is reported
LEAST_SECONDS = 10.0  # a shorter epoch is not judged: its first batches take long


class Speed(NamedTuple):
    """The speed of training."""

    images_per_s: float  # of all processes
    data_wait: float  # fraction of the time in which the process waited for batches

    def __str__(self) -> str:
        return f"{self.images_per_s:.3g} images/s" if self.images_per_s < 1000 else f"{self.images_per_s:,.0f} images/s"


class SpeedMeter:
    """Counts images, time and the wait for data since the last `restart`. Validations do not count."""

    def __init__(self) -> None:
        self.start, self.waited, self.images = 0.0, 0.0, 0
        self.paused: float | None = None  # since when

    def restart(self, trainer: pl.Trainer) -> None:
        """Begins a measurement."""
        self.start, self.waited, self.images, self.paused = time.perf_counter(), _waited(trainer), 0, None

    def count(self, images: int) -> None:
        """Adds images."""
        self.images += images

    def pause(self) -> None:
        """Stops the clock."""
        self.paused = time.perf_counter()

    def resume(self) -> None:
        """Continues the clock after `pause`."""
        if self.paused is not None:
            self.start, self.paused = self.start + time.perf_counter() - self.paused, None

    @property
    def seconds(self) -> float:
        """The time since `restart`, without pauses."""
        return max((self.paused or time.perf_counter()) - self.start, 1e-9)

    def measure(self, trainer: pl.Trainer) -> Speed:
        """Returns the speed since `restart`."""
        wait = min(1.0, (_waited(trainer) - self.waited) / self.seconds)
        return Speed(self.images / self.seconds, wait)


def _waited(trainer: pl.Trainer) -> float:
    """Returns the seconds in which the loader of the training split kept this process waiting so far."""
    return getattr(trainer.train_dataloader, "seconds_waited", 0.0)


def data_wait_advice(speed: Speed, seconds: float, workers: int, cached: bool) -> str | None:
    """Returns what to change if training waited for data for too long, or None.

    `seconds`: of the measurement. `workers`: of the loader. `cached`: whether images are kept in memory.
    """
    if speed.data_wait <= MOST_DATA_WAIT or seconds < LEAST_SECONDS:
        return None
    cores, advice = available_cores(), []
    if workers < cores:
        advice.append(f"more workers (dataset.num_workers is {workers}, and {cores} cores are available)")
    if not cached:
        advice.append("images in memory (dataset.cache=encoded or decoded)")
    advice.append("smaller image files, or fewer or faster steps in augment.train")
    return f"Training waits for data {speed.data_wait:.0%} of the time. What helps: {'; '.join(advice)}. See docs/loading.md."
