"""Watches the training loss: stops a run if it is not finite, and reports spikes."""

from __future__ import annotations

import logging
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor

from spine.command_lines import shell_command
from spine.data.data_module import DataModule
from spine.errors import InputError
from spine.models.sharding import local_part
from spine.reporting.bad_batches import BAD_BATCH, SKIPPED, SPIKES, BatchRecord, append_rows, keep_rows, write_record
from spine.tasks.base import Batch
from spine.training.batch_augmentation import epoch_of_samples
from spine.training.skipping import SkipBadSteps
from spine.training.step_output import step_loss

log = logging.getLogger(__name__)
ADVICE = (
    "Try a lower optimizer.lr, a longer schedule.warmup, trainer.gradient_clip_val=1.0 or trainer.precision=32-true. "
    "If the data holds extreme values, check these first. callbacks.on_nan=skip leaves out such steps."
)


def require_finite_weights(module: pl.LightningModule) -> None:
    """Raises InputError if a parameter holds a value that is not finite."""
    finite = torch.stack([local_part(parameter.detach()).isfinite().all() for parameter in module.parameters()]).all()
    if not module.trainer.strategy.reduce_boolean_decision(bool(finite)):
        step = module.trainer.global_step
        raise InputError(f"The weights are not finite after step {step}; no checkpoint of them was written. {ADVICE}")


@dataclass
class LossLevel:
    """Moving mean and variance of the loss. A loss far above the mean is a spike.

    A spike is `threshold` deviations above the mean, where the deviation counts as at least
    MIN_DEVIATION of the mean: a loss near its end hardly varies. The first MIN_COUNT losses are
    never spikes.
    """

    MIN_COUNT = 100
    MIN_DEVIATION = 0.05
    WEIGHT = 0.01  # of a new loss: the mean is over about 100 batches

    threshold: float | None
    count: int = 0
    mean: float = 0.0
    variance: float = 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation, at least MIN_DEVIATION of the mean."""
        return max(math.sqrt(self.variance), self.MIN_DEVIATION * abs(self.mean))

    def is_spike(self, loss: float) -> bool:
        """Returns whether a loss is far above the level."""
        if self.threshold is None or self.count < self.MIN_COUNT:
            return False
        return loss > self.mean + self.threshold * self.deviation

    def update(self, loss: float) -> None:
        """Adds a loss. A spike counts as the highest loss that is none, so that the level follows a lasting change."""
        if self.is_spike(loss):
            assert self.threshold is not None
            loss = self.mean + self.threshold * self.deviation
        self.count += 1
        weight, change = max(1 / self.count, self.WEIGHT), loss - self.mean
        self.mean += weight * change
        self.variance = (1 - weight) * (self.variance + weight * change**2)


class Seen(NamedTuple):
    """A batch whose loss was not checked yet. The tensors stay on the device."""

    epoch: int  # from 0
    step: int  # of the optimizer, from 1
    loss: Tensor  # ()
    indices: Tensor  # (B,) of the samples
    copies: Tensor | None  # (B,) numbers of their draws in the epoch; None if all are 0
    number: int  # of the batch in the epoch, on its process


@dataclass
class Finding:
    """A batch that is reported."""

    seen: Seen
    rank: int
    reason: str
    loss: float
    file: str
    level: tuple[float, float] = field(default=(0.0, 0.0))  # mean and deviation before this batch


class LossCheck(pl.Callback):
    """Ends the run with an InputError when the training loss is NaN or infinite, and reports spikes of the loss.

    On accelerators the losses are checked every `every_n_steps` steps, all at once, because a check
    waits for the device; on CPUs after every step. The batches since the last check are remembered
    by their indices. The batch is written to
    bad_batch.json, skipped.jsonl or spikes.jsonl in the run folder, and `spine.replay` makes it again.
    """

    def __init__(
        self, folder: Path, seed: int, every_n_steps: int, threshold: float | None = None, skipping: SkipBadSteps | None = None
    ):
        """`threshold`: of spikes, in standard deviations; None reports none. `skipping`: leaves out bad steps, instead of the end."""
        self.folder, self.seed, self.every_n_steps = folder, seed, max(1, every_n_steps)
        self.skipping, self.level = skipping, LossLevel(threshold)
        self.unchecked: list[Seen] = []
        self.rows: dict[str, int] = {SPIKES: 0, SKIPPED: 0}  # of the files; a resumed run drops later rows
        self.step = 0
        self.trainer: pl.Trainer | None = None

    def state_dict(self) -> dict[str, object]:
        """Returns the level of the loss and the number of rows of the files, for the checkpoint.

        Checks all batches before, so that no checkpoint is saved after a loss that is not finite.
        """
        if self.trainer is not None:
            self.check(self.trainer)
        level = self.level
        return {"count": level.count, "mean": level.mean, "variance": level.variance, "rows": dict(self.rows)}

    def load_state_dict(self, state_dict: dict) -> None:
        """Restores the state of a checkpoint."""
        self.level = LossLevel(self.level.threshold, state_dict["count"], state_dict["mean"], state_dict["variance"])
        self.rows = dict(state_dict["rows"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drops rows of the files that are later than the checkpoint."""
        self.trainer = trainer
        if trainer.is_global_zero:
            self.rows = {name: keep_rows(self.folder / name, rows) for name, rows in self.rows.items()}

    def on_train_batch_start(self, trainer: pl.Trainer, *args: object) -> None:
        """Remembers to which step the batch belongs."""
        self.step = trainer.global_step + 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Remembers the batch, and checks the loss if that is due."""
        loss = step_loss(outputs).float() * trainer.accumulate_grad_batches  # Lightning divides it
        epoch = epoch_of_samples(trainer)
        self.unchecked.append(Seen(epoch, self.step, loss, batch["index"], batch.get("copy"), batch_idx))
        loop = trainer.fit_loop.epoch_loop
        due = loss.device.type == "cpu" or len(self.unchecked) >= self.every_n_steps or loop.batch_progress.is_last_batch
        if due and not loop._should_accumulate():
            self.check(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Removes the bad batch of an earlier start."""
        if trainer.is_global_zero:
            (self.folder / BAD_BATCH).unlink(missing_ok=True)

    def check(self, trainer: pl.Trainer) -> None:
        """Checks the losses since the last check, on all processes. Raises InputError if the run ends."""
        if not self.unchecked:
            return
        losses = torch.stack([seen.loss for seen in self.unchecked])
        if trainer.world_size > 1:
            losses = trainer.strategy.all_gather(losses)  # (processes, batches): all come to the same findings
        unchecked, self.unchecked = self.unchecked, []
        checked = list(zip(unchecked, losses.view(-1, len(unchecked)).T.tolist(), strict=True))
        bad_steps = {seen.step for seen, values in checked if not all(map(math.isfinite, values))}
        findings = [finding for seen, values in checked for finding in self._judge(seen, values, seen.step in bad_steps)]
        if findings:
            self._report(trainer, findings)

    def _judge(self, seen: Seen, losses: list[float], bad_step: bool) -> list[Finding]:
        """Returns what is to report about a batch, and updates the level.

        `losses`: of each process. `bad_step`: whether a loss of the same step is not finite.
        """
        skipped = self.skipping is not None and seen.step in self.skipping.recent
        file = SKIPPED if self.skipping is not None else BAD_BATCH
        bad = [rank for rank, loss in enumerate(losses) if not math.isfinite(loss)]
        if bad:
            return [Finding(seen, rank, f"the loss is {losses[rank]}", losses[rank], file) for rank in bad]
        if skipped and not bad_step:
            return [Finding(seen, rank, "the gradients are not finite", loss, file) for rank, loss in enumerate(losses)]
        level = (self.level.mean, self.level.deviation)
        found = [
            Finding(seen, rank, "spike", loss, SPIKES, level) for rank, loss in enumerate(losses) if self.level.is_spike(loss)
        ]
        self.level.update(sum(losses) / len(losses))
        return found

    def _report(self, trainer: pl.Trainer, findings: list[Finding]) -> None:
        """Writes findings to their files and to the log. Raises InputError if the run ends."""
        own = [_draws_of(finding.seen) for finding in findings]
        draws = [own]
        if trainer.world_size > 1:
            draws = [own] * trainer.world_size
            torch.distributed.all_gather_object(draws, own)
        fatal = next((finding for finding in findings if finding.file == BAD_BATCH), None)
        if trainer.is_global_zero:
            for number, finding in enumerate(findings):
                if finding is fatal or finding.file != BAD_BATCH:
                    self._write(trainer, finding, *draws[finding.rank][number])
        if fatal is not None:
            rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
            where = f" on process {fatal.rank}" if trainer.world_size > 1 else ""
            raise InputError(
                f"The training loss is not finite (in step {fatal.seen.step}{where}, epoch {trainer.current_epoch + 1}, learning "
                f"rate {rate:.3g}). The run was stopped; earlier checkpoints are kept. The batch is in {self.folder / BAD_BATCH}. "
                f"{ADVICE}"
            )

    def _write(self, trainer: pl.Trainer, finding: Finding, indices: list[int], copies: list[int]) -> None:
        seen, path = finding.seen, self.folder / finding.file
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        data = datamodule.split("train") if isinstance(datamodule, DataModule) else None
        arguments = repr(str(self.folder)) if finding.file == BAD_BATCH else f"{str(path)!r}, {self.rows[finding.file]}"
        record: BatchRecord = {
            "reason": finding.reason,
            "epoch": seen.epoch + 1,
            "step": seen.step,
            "rank": finding.rank,
            "loss": finding.loss if math.isfinite(finding.loss) else None,
            "level": list(finding.level) if finding.file == SPIKES else None,
            "seed": self.seed,
            "indices": indices,
            "copies": copies,
            "position": seen.number * trainer.world_size + finding.rank,
            "files": [[os.path.abspath(file) for file in data.files(index)] for index in indices] if data is not None else [],
            "command": shell_command(sys.argv[1:]),
            "replay": f"spine.replay({arguments})",
        }
        if finding.file == BAD_BATCH:
            write_record(path, record)
            return
        append_rows(path, [record])
        self.rows[finding.file] += 1
        if finding.file == SPIKES:
            log.warning(
                "The loss of step %d is %.4g, far above its recent level of %.4g ± %.2g. The batch is in %s.",
                seen.step, finding.loss, *finding.level, path,
            )  # fmt: skip


def _draws_of(seen: Seen) -> tuple[list[int], list[int]]:
    """The indices of the samples of a batch, and the numbers of their draws."""
    indices: list[int] = seen.indices.tolist()
    return indices, [0] * len(indices) if seen.copies is None else seen.copies.tolist()
