"""SIGTERM and Ctrl-C end a run in order: the step is finished, the state is saved, and it is said where the run stands."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from spine.errors import RunStopped
from spine.training.checkpoints import LastCheckpoint
from spine.training.random_state import RandomState, capture

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopOnSignal(pl.Callback):
    """Ends training behind the step in which a signal came, or before the next batch of a validation.

    A handler only sets a flag: Lightning's own would start a collective operation inside the signal handler, which blocks
    when other processes wait in another one. A second Ctrl-C ends the process at once.
    """

    def __init__(self, last: LastCheckpoint, random_state: RandomState):
        """`last` writes the state; `random_state` is told the state before a validation that is interrupted."""
        self.last, self.random_state = last, random_state
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the signals over from Lightning. Python allows that in the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            self.previous[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise RunStopped(number)
        self.received = number

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives the signals back."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Gives the signals back after an error too. An error in a validation, such as a broken image, loses no trained epoch.

        Several processes need not meet the same error, and saving would wait for the others.
        """
        self.on_train_end(trainer, pl_module)
        if self.random_state.before_validation is not None and trainer.world_size == 1 and not isinstance(exception, RunStopped):
            self.last.save(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stops behind an optimizer step within an epoch."""
        loop = trainer.fit_loop.epoch_loop
        if not loop.batch_progress.is_last_batch and not loop._should_accumulate() and self._agreed(trainer):
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lets the epoch end and be saved as always, and training end with it; the command then raises RunStopped."""
        if self._agreed(trainer):
            self.received = self.received or signal.SIGTERM  # another process was signalled
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remembers the random state, to which a resumed run returns before it validates anew."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self.random_state.before_validation = capture()
        if self._agreed(trainer):
            self._stop(trainer)

    def on_validation_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stops within a validation, on a single process: several need not be at the same batch."""
        inside = trainer.state.fn == "fit" and not trainer.sanity_checking
        if inside and trainer.world_size == 1 and self.received is not None:
            self._stop(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is saved from here on goes on behind the validation."""
        self.random_state.before_validation = None

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Marks a validation that was interrupted as one that has not begun; Lightning then runs it whole on resume."""
        if self.random_state.before_validation is not None:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress.update(total=begun, current=dict(begun), is_last_batch=False)

    def _agreed(self, trainer: pl.Trainer) -> bool:
        received = self.received is not None
        if trainer.world_size == 1:
            return received
        return trainer.strategy.reduce_boolean_decision(received, all=False)

    def _stop(self, trainer: pl.Trainer) -> None:
        self.last.save(trainer)
        number = self.received or signal.SIGTERM
        raise RunStopped(number)
