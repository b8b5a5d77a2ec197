"""Reports the progress of training: statistics of steps, a progress bar, and lines in the log."""

from __future__ import annotations

import logging
import time

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import STEP_OUTPUT
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor
from torch.optim import Optimizer

from spine.models.sharding import full_tensor
from spine.tasks.base import Batch, Task
from spine.training.step_output import step_loss

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 60.0
SECONDS_BETWEEN_BAR_UPDATES = 0.5


class StepStatistics(pl.Callback):
    """Logs statistics every `log_every_n_steps` steps.

    train/loss_step; train/lr, the highest of the parameter groups; train/grad_norm, before
    clipping; train/images_per_s, of all processes; and train/data_wait, the fraction of time in
    which the process waited for batches.
    """

    def __init__(self) -> None:
        self.start, self.waited, self.images = 0.0, 0.0, 0  # since the last logged step
        self.grad_norm: Tensor | None = None
        self.lr = 0.0
        self.latest = ""  # the last logged values, for the progress bar

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock, and the measurement of the peak memory of a GPU."""
        self._restart_clock(trainer)
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)  # the previous run of a sweep used the same process

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restarts the clock: the time between epochs does not count."""
        self._restart_clock(trainer)

    def _restart_clock(self, trainer: pl.Trainer) -> None:
        self.start, self.images = time.perf_counter(), 0
        self.waited = getattr(trainer.train_dataloader, "seconds_waited", 0.0)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Measures the gradients if the step will be logged.

        They are unscaled and not yet clipped.
        """
        if self._due(trainer.global_step + 1, trainer):
            self.lr = max(group["lr"] for group in optimizer.param_groups)
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            self.grad_norm = full_tensor(torch.nn.utils.get_total_norm(gradients))

    @staticmethod
    def _due(step: int, trainer: pl.Trainer) -> bool:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and step % every == 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Logs the step if it is due."""
        self.images += len(batch["image"]) * trainer.world_size
        loop = trainer.fit_loop.epoch_loop
        if loop._should_accumulate() or not self._due(trainer.global_step, trainer):
            return
        seconds = max(time.perf_counter() - self.start, 1e-9)
        waited = getattr(trainer.train_dataloader, "seconds_waited", 0.0) - self.waited
        values = {
            "train/loss_step": float(step_loss(outputs)),
            "train/lr": self.lr,
            "train/images_per_s": self.images / seconds,
            "train/data_wait": min(1.0, waited / seconds),
        }
        if self.grad_norm is not None:
            values["train/grad_norm"] = float(self.grad_norm)
        for logger in trainer.loggers:
            logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=trainer.global_step - 1)
        norm = f"  grad norm {values['train/grad_norm']:.3g}" if self.grad_norm is not None else ""
        self.latest = (
            f"  lr {values['train/lr']:.3g}{norm}  {values['train/images_per_s']:.3g} images/s"
            f"  data wait {values['train/data_wait']:.0%}"
        )
        self._restart_clock(trainer)


class RunProgress(pl.Callback):
    """Shows the progress of a run.

    On a terminal, draws a progress bar; otherwise, prints one line per minute. In both cases,
    prints one line for each epoch.
    """

    def __init__(self, bar: bool, statistics: StepStatistics):
        """`bar`: draw a progress bar; otherwise print lines only.

        The last values of `statistics` are shown after the loss.
        """
        self.statistics = statistics
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"), transient=True
        ) if bar else None  # fmt: skip
        self.start = self.epoch_start = self.last_update = 0.0
        self.first_batch = 0  # number of batches of the run before this process continued it

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock and the bar."""
        self.start = self.epoch_start = self.last_update = time.perf_counter()
        self.first_batch = self._batches_done(trainer)
        if self.bar is not None and trainer.is_global_zero:
            self.bar.add_task("", total=None, status="")
            self.bar.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock of the epoch."""
        self.epoch_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Updates the bar, or prints a line once a minute."""
        if not trainer.is_global_zero:
            return
        now = time.perf_counter()
        interval = SECONDS_BETWEEN_BAR_UPDATES if self.bar is not None else SECONDS_BETWEEN_LINES
        if now - self.last_update < interval:
            return
        self.last_update = now
        total = trainer.num_training_batches
        step, loss = f"step {batch_idx + 1}/{total}", float(step_loss(outputs))
        status = f"{step}  loss {loss:.4f}{self.statistics.latest}{self._time_left(trainer, now)}"
        if self.bar is None:
            log.info("%s  %s", _epoch(trainer), status)
        else:
            task_id = self.bar.task_ids[0]
            self.bar.update(task_id, description=_epoch(trainer), completed=batch_idx + 1, total=total, status=status)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shows in the bar that a validation runs."""
        if self.bar is not None and self.bar.live.is_started:
            total = trainer.num_training_batches
            self.bar.update(self.bar.task_ids[0], completed=total, total=total, status="validating")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints one line with the results of a validation within an epoch."""
        assert isinstance(pl_module, Task)
        within = trainer.state.fn == "fit" and trainer.check_val_every_n_epoch is None and not trainer.sanity_checking
        if within and trainer.is_global_zero:
            found = {key: trainer.callback_metrics.get(key) for key in ("val/loss", pl_module.monitor)}
            metrics = "  ".join(f"{key} {float(value):.4f}" for key, value in found.items() if value is not None)
            log.info("step %d  %s", trainer.global_step, metrics)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints one line with the results of the epoch."""
        assert isinstance(pl_module, Task)
        values: dict[str, Tensor | None] = {"train/loss": pl_module.train_loss.compute()}  # on every process: it gathers
        if not trainer.is_global_zero:
            return
        if trainer.check_val_every_n_epoch is not None and trainer.fit_loop.epoch_loop._should_check_val_epoch():
            values |= {key: trainer.callback_metrics.get(key) for key in ("val/loss", pl_module.monitor)}
        metrics = "  ".join(f"{key} {float(value):.4f}" for key, value in values.items() if value is not None)
        now = time.perf_counter()
        log.info("%s  %s  %.1f s", _epoch(trainer), metrics, now - self.epoch_start)
        self.last_update = now

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

    def _time_left(self, trainer: pl.Trainer, now: float) -> str:
        """Returns the estimated time to the end of the run.

        It follows from the average speed of this process, including validation.
        """
        done = self._batches_done(trainer) - self.first_batch
        limits = []
        if trainer.max_epochs and trainer.max_epochs > 0:
            limits.append(trainer.max_epochs * trainer.num_training_batches - self._batches_done(trainer))
        if trainer.max_steps > 0:
            limits.append((trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
        if not limits:
            return ""
        left = min(limits)
        seconds = int((now - self.start) / max(1, done) * max(0, left))
        hours, minutes = divmod(seconds // 60, 60)
        return f"  {hours}:{minutes:02}:{seconds % 60:02} left"


def _epoch(trainer: pl.Trainer) -> str:
    if trainer.max_epochs and trainer.max_epochs > 0:
        return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
    return f"step {trainer.global_step}/{trainer.max_steps}  epoch {trainer.current_epoch + 1}"
