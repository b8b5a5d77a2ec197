"""Shows the progress of a run: a progress bar on a terminal, and lines in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import STEP_OUTPUT
from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text
from torch import Tensor

from spine.tasks.base import Batch, Task
from spine.training.speed import SpeedMeter, data_wait_advice
from spine.training.step_output import step_loss
from spine.training.step_statistics import StepStatistics

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 60.0
SECONDS_BETWEEN_BAR_UPDATES = 0.5
SECONDS_OF_SPEED = 5.0  # the speed in the bar is the mean of at least so long


class ProgressBar(Progress):
    """A progress bar, and a line of text below it. The bar disappears when it is stopped."""

    def __init__(self) -> None:
        self.text = ""
        columns = TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[status]}")
        super().__init__(*columns, transient=True, expand=True)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Returns what is drawn. Called by rich."""
        yield from super().get_renderables()
        yield Text(self.text, no_wrap=True)

    def show(self, description: str, completed: int, total: int | float, status: str, below: Sequence[str] = ()) -> None:
        """Draws a new state. Of the texts `below` the bar, the last ones are left out in a narrow terminal."""
        if self.live.is_started:
            self.text = fitted(below, self.console.width)
            self.update(self.task_ids[0], description=description, completed=completed, total=total, status=status)


class RunProgress(pl.Callback):
    """Shows epoch, step, loss, the watched metric, images per second, the wait for data, and the time that is left.

    On a terminal, draws a progress bar; otherwise, prints one line per minute. In both cases,
    prints one line for each epoch.
    """

    def __init__(self, bar: bool, statistics: StepStatistics):
        """`bar`: draw a progress bar; otherwise print lines only. `statistics`: knows the learning rate and the gradient norm."""
        self.statistics = statistics
        self.bar = ProgressBar() if bar else None
        self.start = self.epoch_start = self.last_update = 0.0
        self.first_batch = 0  # number of batches of the run before this process continued it
        self.recent, self.epoch = SpeedMeter(), SpeedMeter()
        self.speed: list[str] = []  # in words
        self.advised = False  # whether the wait for data was reported
        self.watched = ""  # the last value of the metric that selects the best checkpoint

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock and the bar."""
        self.start = self.epoch_start = self.last_update = time.perf_counter()
        self.first_batch = self._batches_done(trainer)
        for meter in (self.recent, self.epoch):  # a run that is resumed within an epoch does not begin one
            meter.restart(trainer)
        if self.bar is not None and trainer.is_global_zero:
            self.bar.add_task("", total=None, status="")
            self.bar.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock of the epoch."""
        self.epoch_start = time.perf_counter()
        self.recent.restart(trainer)
        self.epoch.restart(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Updates the bar, or prints a line once a minute."""
        for meter in (self.recent, self.epoch):
            meter.count(len(batch["image"]) * trainer.world_size)
        now = time.perf_counter()
        interval = SECONDS_BETWEEN_BAR_UPDATES if self.bar is not None else SECONDS_BETWEEN_LINES
        if not trainer.is_global_zero or now - self.last_update < interval:
            return
        self.last_update = now
        if not self.speed or self.recent.seconds >= min(SECONDS_OF_SPEED, interval):
            self.speed = _in_words(self.recent, trainer)
            self.recent.restart(trainer)
        total = trainer.num_training_batches
        step = f"step {batch_idx + 1}/{total}" if _counts_epochs(trainer) else ""
        values = [f"loss {float(step_loss(outputs)):.4f}", self.watched, *self.speed, *self.statistics.latest]
        left = self.time_left(trainer)
        if self.bar is None:
            log.info("%s", _joined([_epoch(trainer), step, *values, left]))
        else:
            self.bar.show(_epoch(trainer), batch_idx + 1, total, _joined([step, left]), values)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops the clocks of the speed."""
        self.recent.pause()
        self.epoch.pause()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Shows in the bar how far a validation is."""
        now, total = time.perf_counter(), trainer.num_val_batches[0]
        if trainer.is_global_zero and self.bar is not None and now - self.last_update >= SECONDS_BETWEEN_BAR_UPDATES:
            self.last_update = now
            status = f"validation {batch_idx + 1}/{total}"
            self.bar.show(_epoch(trainer), batch_idx + 1, total, status, [self.watched])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes the watched metric. Prints one line with the results of a validation within an epoch."""
        assert isinstance(pl_module, Task)
        self.recent.resume()
        self.epoch.resume()
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        values = _results(trainer, pl_module)
        self.watched = values.get(pl_module.monitor, "")
        if trainer.state.fn == "fit" and trainer.check_val_every_n_epoch is None:
            log.info("%s", _joined([f"step {trainer.global_step}", *values.values()]))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints one line with the results of the epoch."""
        assert isinstance(pl_module, Task)
        loss = float(pl_module.train_loss.compute())  # on every process: it gathers
        if not trainer.is_global_zero:
            return
        validated = trainer.check_val_every_n_epoch is not None and trainer.fit_loop.epoch_loop._should_check_val_epoch()
        now = time.perf_counter()
        line = [
            _epoch(trainer),
            f"step {trainer.global_step}" if _counts_epochs(trainer) else "",
            f"train/loss {loss:.4f}",
            *(_results(trainer, pl_module).values() if validated else ()),
            *_in_words(self.epoch, trainer),
            f"{now - self.epoch_start:.1f} s",
            self.time_left(trainer),
        ]
        log.info("%s", _joined(line))
        self.last_update = now

        self._advise(trainer)

    def _advise(self, trainer: pl.Trainer) -> None:
        """Says once in a run what to change if it waits for data."""
        workers = getattr(trainer.train_dataloader, "num_workers", 0)
        cached = getattr(trainer.datamodule, "memory", None) is not None  # type: ignore[attr-defined]
        advice = data_wait_advice(self.epoch.measure(trainer), self.epoch.seconds, workers, cached)
        if advice is not None and not self.advised:
            self.advised = True
            log.warning("%s", advice)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Removes the bar."""
        if self.bar is not None:
            self.bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Removes the bar."""
        self.on_train_end(trainer, pl_module)

    @staticmethod
    def _batches_done(trainer: pl.Trainer) -> int:
        return trainer.fit_loop.epoch_loop.batch_progress.total.ready

    def time_left(self, trainer: pl.Trainer) -> str:
        """Returns the estimated time to the end of the run, in words.

        It follows from the average speed of this process, including validation.
        """
        done = self._batches_done(trainer) - self.first_batch
        limits = []
        if trainer.max_epochs and trainer.max_epochs > 0:
            limits.append(trainer.max_epochs * trainer.num_training_batches - self._batches_done(trainer))
        if trainer.max_steps > 0:
            limits.append((trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
        if (left := min(limits, default=0)) <= 0:
            return ""
        seconds = int((time.perf_counter() - self.start) / max(1, done) * left)
        hours, minutes = divmod(seconds // 60, 60)
        return f"{hours}:{minutes:02}:{seconds % 60:02} left"

    def position(self, trainer: pl.Trainer) -> str:
        """Returns where the run is, in words, for its report."""
        step = f"step {trainer.global_step}" if _counts_epochs(trainer) else ""
        return ", ".join(filter(None, (_epoch(trainer), step, self.time_left(trainer))))


def fitted(parts: Sequence[str], width: int) -> str:
    """Returns as many parts as fit into a line of `width` characters, from the first one on."""
    count = len(parts)
    while count > 1 and len(_joined(parts[:count])) > width:
        count -= 1
    return _joined(parts[:count])


def _joined(parts: Iterable[str]) -> str:
    return "  ".join(part for part in parts if part)


def _in_words(meter: SpeedMeter, trainer: pl.Trainer) -> list[str]:
    speed = meter.measure(trainer)
    return [str(speed), f"data wait {speed.data_wait:.0%}"]


def _results(trainer: pl.Trainer, task: Task) -> dict[str, str]:
    """Returns the loss and the watched metric of the last validation, in words."""
    values: dict[str, Tensor | None] = {key: trainer.callback_metrics.get(key) for key in ("val/loss", task.monitor)}
    return {key: f"{key} {float(value):.4f}" for key, value in values.items() if value is not None}


def _counts_epochs(trainer: pl.Trainer) -> bool:
    """Returns whether the length of the training is a number of epochs, not of steps."""
    return bool(trainer.max_epochs and trainer.max_epochs > 0)


def _epoch(trainer: pl.Trainer) -> str:
    if _counts_epochs(trainer):
        return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
    return f"epoch {trainer.current_epoch + 1}  step {trainer.global_step}/{trainer.max_steps}"
