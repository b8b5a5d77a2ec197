"""The numbers at the top of a report: metrics, and what the run cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spine.reporting.numbers import decimals, duration, significant
from spine.reporting.run_record import RunRecord


@dataclass(frozen=True)
class Number:
    """A number with its name. `value`: as it is stored; None for a text."""

    name: str
    text: str
    hint: str = ""
    value: float | None = None


def metric_numbers(record: RunRecord) -> list[Number]:
    """Returns the metrics, without those of single classes, the one that selects the best checkpoint first.

    For a run that is not finished, these are the best value of that metric so far, and the last values of the others.
    """
    if record.metrics:
        values = {name: value for name, value in record.metrics.items() if name.count("/") < 2}
        hints = dict.fromkeys(values, "")
    else:
        values = {name: points[-1][1] for name, points in record.history.items() if name.startswith("val/") and points}
        hints = dict.fromkeys(values, "last value so far")
        if record.monitor in values:
            values[record.monitor] = record.best_so_far(record.monitor, record.maximize)
            hints[record.monitor] = "best value so far"
    names = sorted(values, key=lambda name: name != record.monitor)
    return [_metric(name, values[name], hints[name]) for name in names]


def _metric(name: str, value: float, hint: str) -> Number:
    if not math.isfinite(value):
        return Number(name, "not a number", hint)
    return Number(name, significant(value, 2) if 0 < abs(value) < 0.001 else decimals(value), hint, value)


def cost_numbers(record: RunRecord, steps: int | None) -> list[Number]:
    """Returns time, speed, size and memory, as far as they are known. `steps`: those of a finished training."""
    costs = record.costs
    found = [
        _count("epochs", record.epochs, f"of at most {record.max_epochs}" if record.max_epochs else ""),
        _count("steps", steps, "of the optimizer"),
        Number("time", duration(record.seconds), "" if record.split else "of the last start, with the final evaluation", record.seconds)
        if math.isfinite(record.seconds)
        else None,
        _cost("images/s", _speed(record), significant, "in training, all processes together: the median"),
        _cost("data wait", _wait(record), lambda wait: f"{wait:.1%}", "of the time of training: waiting for batches"),
        _cost("parameters", costs.get("parameters"), lambda count: f"{count / 1e6:.2f} M", "of the network with its head"),
        _cost("multiply-adds", costs.get("multiply_adds"), _multiply_adds, "of the forward pass of one image"),
        _cost("memory", costs.get("peak_memory_mb"), lambda size: f"{size:,.0f} MB", "the most that the first process used"),
    ]  # fmt: skip
    return [number for number in found if number is not None]


def _speed(record: RunRecord) -> float | str | None:
    return record.costs.get("images_per_s") or _summary(record, "train/images_per_s", statistics.median)


def _wait(record: RunRecord) -> float | str | None:
    known = record.costs.get("data_wait")
    return _summary(record, "train/data_wait", statistics.fmean) if known is None else known


def _summary(record: RunRecord, name: str, function: Callable[[Sequence[float]], float]) -> float | None:
    values = [value for _, value in record.history.get(name, ())]
    return function(values) if values else None


def _multiply_adds(count: float) -> str:
    return f"{significant(count / 1e9)} G" if count >= 1e8 else f"{significant(count / 1e6)} M"


def _count(name: str, value: int | None, hint: str) -> Number | None:
    return None if value is None else Number(name, f"{value:,}", hint, value)


def _cost(name: str, value: float | str | None, text: Callable[[float], str], hint: str) -> Number | None:
    return Number(name, text(value), hint, value) if isinstance(value, int | float) else None
