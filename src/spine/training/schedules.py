"""Learning rate schedules, stepped after every optimizer step.

A schedule is one factor for all parameter groups: the rate of a group is its initial rate times the
factor. Absolute rates in the options are those of a group with `lr_scale` 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from spine.errors import InputError

Decay = Callable[[float, float], float]  # steps since the start of the decay, all its steps -> factor
WarmupMode = Literal["prefix", "replace", "multiply"]


class ScheduleOptions(TypedDict, total=False):
    """Options that every schedule takes."""

    warmup_epochs: float | None  # replaces `warmup`, the fraction of all steps
    warmup_steps: int | None  # replaces `warmup`
    warmup_start: float | None  # the first learning rate
    warmup_start_ratio: float | None  # the same, relative to optimizer.lr
    warmup_reaches_lr: bool  # the last step of the warm-up has the full learning rate; False: the first step after it
    warmup_mode: WarmupMode | None  # prefix: the decay begins after the warm-up; see `Schedule`
    per_epoch: bool  # the learning rate changes between epochs only
    delay: int  # steps by which the schedule is late; -1: early by one


@dataclass(frozen=True)
class Schedule:
    """Factor of the learning rate as a function of the step.

    The warm-up is linear. Without a start value, step i of W has the factor (i + 1) / (W + 1).
    Otherwise the factor grows from `start` in step 0 to 1 in step W, the first after the warm-up, or
    with `reaches_lr` in step W - 1, the last of the warm-up.

    `mode`: "prefix": the decay begins after the warm-up. "replace": the decay begins at step 0, and the
    warm-up replaces its first steps. "multiply": the same, and the warm-up multiplies them.
    """

    decay: Decay
    total_steps: int
    warmup_steps: int
    start: float | None
    reaches_lr: bool
    mode: WarmupMode
    steps_per_epoch: int | None  # given if the rate changes between epochs only
    delay: int

    def __call__(self, step: int) -> float:
        """Returns the factor of a step, counted from 0."""
        step = max(0, step - self.delay)
        if self.steps_per_epoch is not None:
            step = step // self.steps_per_epoch * self.steps_per_epoch
        skipped = self.warmup_steps if self.mode == "prefix" else 0
        if step >= self.warmup_steps:
            return self.decay(step - skipped, self.total_steps - skipped)
        return self._warmup(step) * (self.decay(step, self.total_steps) if self.mode == "multiply" else 1.0)

    def _warmup(self, step: int) -> float:
        if self.start is None:
            return (step + 1) / (self.warmup_steps + (0 if self.reaches_lr else 1))
        return self.start + (1 - self.start) * step / max(1, self.warmup_steps - self.reaches_lr)


def cosine(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int | None = None,
    *,
    warmup: float = 0.05,
    min_lr: float | None = None,
    min_lr_ratio: float = 0.0,
    **options: Unpack[ScheduleOptions],
) -> LambdaLR:
    """Linear warm-up, then cosine decay to `min_lr`, or to `min_lr_ratio` times the learning rate.

    Source: Loshchilov and Hutter, arXiv 1608.03983.
    """
    low = _lowest(optimizer, min_lr, min_lr_ratio)

    def decay(step: float, steps: float) -> float:
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * _progress(step, steps)))

    return _scheduler(optimizer, total_steps, steps_per_epoch, decay, warmup, "prefix", options)


def poly(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int | None = None,
    *,
    warmup: float = 0.01,
    power: float = 1.0,
    min_lr: float | None = None,
    min_lr_ratio: float = 0.0,
    **options: Unpack[ScheduleOptions],
) -> LambdaLR:
    """Linear warm-up, then polynomial decay (1 - t) ** power, which is common in segmentation. Power 1 is linear decay."""
    low = _lowest(optimizer, min_lr, min_lr_ratio)

    def decay(step: float, steps: float) -> float:
        return low + (1 - low) * (1 - _progress(step, steps)) ** power

    return _scheduler(optimizer, total_steps, steps_per_epoch, decay, warmup, "prefix", options)


def constant(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int | None = None,
    *,
    warmup: float = 0.0,
    **options: Unpack[ScheduleOptions],
) -> LambdaLR:
    """Linear warm-up, then a constant learning rate."""
    return _scheduler(optimizer, total_steps, steps_per_epoch, lambda step, steps: 1.0, warmup, "prefix", options)


def step(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int | None = None,
    *,
    warmup: float = 0.0,
    every_epochs: float = 30,
    rate: float = 0.1,
    **options: Unpack[ScheduleOptions],
) -> LambdaLR:
    """Multiplies the learning rate by `rate` after every `every_epochs` epochs."""
    epoch_of = _epochs(steps_per_epoch)
    decay: Decay = lambda step, steps: rate ** (epoch_of(step) // every_epochs)  # noqa: E731
    return _scheduler(optimizer, total_steps, steps_per_epoch, decay, warmup, "replace", options)


def multi_step(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int | None = None,
    *,
    warmup: float = 0.0,
    milestones: Sequence[float] = (30, 60, 90),
    rate: float = 0.1,
    **options: Unpack[ScheduleOptions],
) -> LambdaLR:
    """Multiplies the learning rate by `rate` after each of the epochs in `milestones`."""
    epoch_of = _epochs(steps_per_epoch)
    decay: Decay = lambda step, steps: rate ** sum(epoch_of(step) >= milestone for milestone in milestones)  # noqa: E731
    return _scheduler(optimizer, total_steps, steps_per_epoch, decay, warmup, "replace", options)


def exponential(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int | None = None,
    *,
    warmup: float = 0.0,
    every_epochs: float = 1,
    rate: float = 0.97,
    **options: Unpack[ScheduleOptions],
) -> LambdaLR:
    """Exponential decay in every step: by `rate` in `every_epochs` epochs."""
    epoch_of = _epochs(steps_per_epoch)
    decay: Decay = lambda step, steps: rate ** (epoch_of(step) / every_epochs)  # noqa: E731
    return _scheduler(optimizer, total_steps, steps_per_epoch, decay, warmup, "replace", options)


def _scheduler(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int | None,
    decay: Decay,
    warmup: float,
    mode: WarmupMode,
    options: ScheduleOptions,
) -> LambdaLR:
    """Returns the scheduler of a decay with a warm-up. `mode`: the default of the schedule."""
    warmup_steps = _count_warmup_steps(total_steps, steps_per_epoch, warmup, options)
    per_epoch = options.get("per_epoch", False)
    if per_epoch:
        _epochs(steps_per_epoch)
    schedule = Schedule(
        decay,
        total_steps,
        warmup_steps,
        start=_relative(optimizer, options.get("warmup_start"), options.get("warmup_start_ratio"), "warmup_start"),
        reaches_lr=options.get("warmup_reaches_lr", False),
        mode=options.get("warmup_mode") or mode,
        steps_per_epoch=steps_per_epoch if per_epoch else None,
        delay=options.get("delay", 0),
    )
    return LambdaLR(optimizer, lambda step: schedule(step))  # the attributes of other callables would be saved in checkpoints


def _count_warmup_steps(total_steps: int, steps_per_epoch: int | None, warmup: float, options: ScheduleOptions) -> int:
    """Returns the number of steps of the warm-up. Raises InputError if it is given twice, or longer than training."""
    epochs, steps = options.get("warmup_epochs"), options.get("warmup_steps")
    if not 0 <= warmup < 1:
        raise InputError(f"schedule.warmup is {warmup}; it must be a fraction of all steps, 0 or more and below 1.")
    if epochs is not None and steps is not None:
        raise InputError(f"schedule.warmup_epochs is {epochs} and schedule.warmup_steps is {steps}. Give one of them.")
    if epochs is not None:
        count = round(epochs / _epochs(steps_per_epoch)(1))
    else:
        count = steps if steps is not None else round(warmup * total_steps)
    if count >= total_steps > 0 and count > 0:
        given = f"warmup_epochs={epochs}" if epochs is not None else f"warmup_steps={steps}"
        raise InputError(
            f"schedule.{given} is a warm-up of {count} steps, but the training has {total_steps}. Give a shorter one."
        )
    return count


def _epochs(steps_per_epoch: int | None) -> Callable[[float], float]:
    """Returns the function from steps to epochs. Raises InputError if the number of steps in an epoch is not known."""
    if steps_per_epoch is None:
        raise InputError("The schedule counts epochs: it needs steps_per_epoch, the number of optimizer steps in an epoch.")
    return lambda step: step / steps_per_epoch


def _progress(step: float, steps: float) -> float:
    return min(1.0, step / max(1, steps))


def _lowest(optimizer: Optimizer, min_lr: float | None, min_lr_ratio: float) -> float:
    """Returns the lowest learning rate relative to that of the optimizer."""
    return _relative(optimizer, min_lr, min_lr_ratio or None, "min_lr") or 0.0


def _relative(optimizer: Optimizer, value: float | None, ratio: float | None, key: str) -> float | None:
    """Returns a learning rate relative to that of the optimizer, given as one or the other.

    Raises InputError if both are given, or if it is higher than that of the optimizer.
    """
    if value is not None and ratio is not None:
        raise InputError(f"schedule.{key} is {value} and schedule.{key}_ratio is {ratio}. Give one of them.")
    if value is None:
        return ratio
    lr = float(optimizer.defaults["lr"])
    if value > lr:
        raise InputError(f"schedule.{key} is {value}, higher than the learning rate of the optimizer, {lr:g}.")
    return value / lr
