"""Callback that stops training on SIGTERM, Ctrl-C and the signals of SLURM: it finishes the step and saves the state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

import pytorch_lightning as pl
import torch

from spine.errors import STOP_SIGNALS, RunStopped
from spine.training.checkpoints import CheckpointContent, LastCheckpoint
from spine.training.random_state import RandomState, capture

SignalHandler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None


class StopOnSignal(pl.Callback):
    """Stops training after the step in which a signal arrived.

    In a validation, it stops before the next batch. The signal handler only sets a flag.
    Lightning's handler would start a collective operation inside the signal handler, which blocks
    if other processes wait in a different one. A second Ctrl-C ends the process at once.
    """

    def __init__(self, last: LastCheckpoint, random_state: RandomState):
        """`last`: saves the state. `random_state`: gets the random state before each validation."""
        self.last, self.random_state = last, random_state
        self.received: int | None = None  # signal number
        self.previous: dict[int, SignalHandler] = {}  # handlers before training

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replaces Lightning's signal handlers. A signal in the sanity check stops the run after its first step."""
        self._replace_handlers()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replaces Lightning's signal handlers, if there was no sanity check."""
        self._replace_handlers()

    def _replace_handlers(self) -> None:
        """Python allows this in the main thread only."""
        if self.previous or threading.current_thread() is not threading.main_thread():
            return
        for number in STOP_SIGNALS:
            self.previous[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise RunStopped(number)
        self.received = number

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restores the previous signal handlers."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restores the signal handlers, and saves the trained epoch if the error is in a validation.

        Such an error may be a broken image. With several processes nothing is saved: they may not
        all have the error, and saving would wait for the others.
        """
        self.on_train_end(trainer, pl_module)
        if self.random_state.before_validation is not None and trainer.world_size == 1 and not isinstance(exception, RunStopped):
            self.last.save(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        """Stops after an optimizer step within an epoch."""
        loop = trainer.fit_loop.epoch_loop
        if not loop.batch_progress.is_last_batch and not loop._should_accumulate() and self._any_received(trainer):
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends training after this epoch, which is saved as usual.

        The command then raises RunStopped.
        """
        if self._any_received(trainer):
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stores the random state. A resumed run restores it before it repeats the validation."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self.random_state.before_validation = capture()
        if self._any_received(trainer):
            self._stop(trainer)

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: object) -> None:
        """Stops within a validation.

        Several processes may be at different batches, and do not stop.
        """
        in_training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if in_training and trainer.world_size == 1 and self.received is not None:
            self._stop(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Later checkpoints hold the current random state again."""
        self.random_state.before_validation = None

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: CheckpointContent) -> None:
        """Marks an interrupted validation, or one that follows the step, as not begun.

        Lightning then runs the whole validation on resume.
        """
        if self.random_state.before_validation is not None or _validation_follows(trainer):
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            counts = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress.update(total=counts, current=dict(counts), is_last_batch=False)
            if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:  # Lightning counts the step twice on resume
                checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1

    def _any_received(self, trainer: pl.Trainer) -> bool:
        """Returns whether any process received a signal. All processes then take that of the first one for their own."""
        received = self.received is not None
        if trainer.world_size == 1:
            return received
        if not trainer.strategy.reduce_boolean_decision(received, all=False):
            return False
        numbers: list[int | None] = [self.received] * trainer.world_size
        torch.distributed.all_gather_object(numbers, self.received)
        self.received = next(number for number in numbers if number is not None)
        return True

    def _stop(self, trainer: pl.Trainer) -> None:
        assert self.received is not None
        self.last.save(trainer)
        raise RunStopped(self.received)


def _validation_follows(trainer: pl.Trainer) -> bool:
    """Returns whether a batch was just trained after which a validation runs. Lightning would leave it out on resume."""
    loop, interval = trainer.fit_loop.epoch_loop, trainer.val_check_batch
    counts = loop.batch_progress.current
    if not trainer.enable_validation or not isinstance(interval, int) or counts.completed == counts.processed:  # type: ignore[attr-defined]
        return False
    index = loop.total_batch_idx if trainer.check_val_every_n_epoch is None else loop.batch_idx
    return (index + 1) % interval == 0
