"""What is seen of a training while it runs: statistics of steps, a progress bar, and lines in a log."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytorch_lightning as pl
import torch
from rich.progress import BarColumn, Progress, TextColumn
from torch.optim import Optimizer

from spine.tasks.base import Task

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 60.0


class StepStatistics(pl.Callback):
    """Logs, every `log_every_n_steps`: train/loss_step, train/lr (the highest of the groups), train/grad_norm (before
    clipping), train/images_per_s and train/data_wait (the share of the time in which the process waited for batches).
    """

    def __init__(self) -> None:
        self.start, self.waited, self.images = 0.0, 0.0, 0
        self.norm: torch.Tensor | None = None
        self.rate = 0.0
        self.latest = ""  # the last values that were logged, for the bar

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._restart_clock(trainer)

    def _restart_clock(self, trainer: pl.Trainer) -> None:
        self.start, self.images = time.perf_counter(), 0
        self.waited = getattr(trainer.train_dataloader, "seconds_waited", 0.0)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the time between epochs out."""
        self._restart_clock(trainer)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Measures the gradients of a step that will be logged: they are unscaled, not clipped yet."""
        if self._due(trainer.global_step + 1, trainer):
            self.rate = max(group["lr"] for group in optimizer.param_groups)
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self.norm = torch.nn.utils.get_total_norm(gradients)

    @staticmethod
    def _due(step: int, trainer: pl.Trainer) -> bool:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and step % every == 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs a due step."""
        self.images += len(batch["image"]) * trainer.world_size
        loop = trainer.fit_loop.epoch_loop
        if loop._should_accumulate() or not self._due(trainer.global_step, trainer):
            return
        seconds = max(time.perf_counter() - self.start, 1e-9)
        waited = getattr(trainer.train_dataloader, "seconds_waited", 0.0) - self.waited
        values = {
            "train/loss_step": float(outputs["loss"].detach()),
            "train/lr": self.rate,
            "train/images_per_s": self.images / seconds,
            "train/data_wait": min(1.0, waited / seconds),
        }
        if self.norm is not None:
            values["train/grad_norm"] = float(self.norm)
        for logger in trainer.loggers:
            logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=trainer.global_step - 1)
        norm = f"  grad norm {values['train/grad_norm']:.3g}" if self.norm is not None else ""
        self.latest = (
            f"  lr {values['train/lr']:.3g}{norm}  {values['train/images_per_s']:.3g} images/s"
            f"  data wait {values['train/data_wait']:.0%}"
        )
        self._restart_clock(trainer)


class RunProgress(pl.Callback):
    """A bar for the run on a terminal, one line a minute in a pipe or file; and in both one line for every finished epoch."""

    def __init__(self, bar: bool, statistics: StepStatistics):
        """`bar`: draw a bar; false prints lines only. What `statistics` logged last is shown beside the loss."""
        self.statistics = statistics
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"), transient=True
        ) if bar else None  # fmt: skip
        self.start = self.epoch_start = self.last_line = 0.0
        self.first_batch = 0  # of the run, counted over epochs, that this process trained

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts clock and bar."""
        self.start = self.epoch_start = self.last_line = time.perf_counter()
        self.first_batch = self._batches_done(trainer)
        if self.bar is not None and trainer.is_global_zero:
            self.bar.add_task("", total=None, status="")
            self.bar.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock of the epoch."""
        self.epoch_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar; in a pipe prints a line when a minute has passed."""
        if not trainer.is_global_zero:
            return
        now = time.perf_counter()
        wait = 0.5 if self.bar is not None else SECONDS_BETWEEN_LINES
        if now - self.last_line < wait:
            return
        self.last_line = now
        loss = float(outputs["loss"].detach())
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        where = f"epoch {trainer.current_epoch + 1}/{epochs}"
        step = f"step {batch_idx + 1}/{trainer.num_training_batches}"
        status = f"{step}  loss {loss:.4f}{self.statistics.latest}{self._left(trainer, now)}"
        if self.bar is None:
            log.info("%s  %s", where, status)
        else:
            total = trainer.num_training_batches
            self.bar.update(self.bar.task_ids[0], description=where, completed=batch_idx + 1, total=total, status=status)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says that the epoch is being validated."""
        if self.bar is not None and self.bar.live.is_started:
            total = trainer.num_training_batches
            self.bar.update(self.bar.task_ids[0], completed=total, total=total, status="validating")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the line of the epoch."""
        assert isinstance(pl_module, Task)
        values: dict[str, Any] = {"train/loss": pl_module.train_loss.compute()}  # on every process: it gathers
        if not trainer.is_global_zero:
            return
        if trainer.fit_loop.epoch_loop._should_check_val_epoch():
            values |= {key: trainer.callback_metrics.get(key) for key in ("val/loss", pl_module.monitor)}
        shown = "  ".join(f"{key} {float(value):.4f}" for key, value in values.items() if value is not None)
        now = time.perf_counter()
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        log.info("epoch %d/%s  %s  %.1f s", trainer.current_epoch + 1, epochs, shown, now - self.epoch_start)
        self.last_line = now

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the bar off the screen."""
        if self.bar is not None:
            self.bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Takes the bar off the screen."""
        self.on_train_end(trainer, pl_module)

    @staticmethod
    def _batches_done(trainer: pl.Trainer) -> int:
        return trainer.fit_loop.epoch_loop.batch_progress.total.ready

    def _left(self, trainer: pl.Trainer, now: float) -> str:
        """The time left for the run, from the speed of this process so far, validation included."""
        if not trainer.max_epochs or trainer.max_epochs < 0:
            return ""
        done = self._batches_done(trainer) - self.first_batch
        left = trainer.max_epochs * trainer.num_training_batches - self._batches_done(trainer)
        if trainer.max_steps and trainer.max_steps > 0:
            steps_left = trainer.max_steps - trainer.global_step
            left = min(left, steps_left * trainer.accumulate_grad_batches)
        seconds = int((now - self.start) / max(1, done) * max(0, left))
        hours, minutes = divmod(seconds // 60, 60)
        return f"  {hours}:{minutes:02}:{seconds % 60:02} left"
