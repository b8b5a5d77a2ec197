"""The columns of a leaderboard, which the table on the terminal, the CSV file and the HTML page share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from spine.reporting.leaderboard.ranking import Entry, Group, key_value
from spine.reporting.numbers import decimals, duration, significant

Value = float | str | None
MISSING = "-"


@dataclass(frozen=True)
class Column:
    """One column: how it is named, where its values come from, and how they are written."""

    key: str  # in the CSV file
    title: str  # in the tables
    value: Callable[[Entry], Value]
    text: Callable[[float], str] | None = None  # writes a number; None for columns of text
    more: bool = False  # left out on the terminal, and hidden on the page at first
    hint: str = ""

    def cell(self, entry: Entry) -> str:
        """Returns the text of one cell of the tables."""
        value = self.value(entry)
        if isinstance(value, float | int) and self.text is not None:
            return self.text(value) if math.isfinite(value) else MISSING
        return str(value) if value not in (None, "") else MISSING


def group_columns(group: Group) -> list[Column]:
    """Returns the columns of a group after the first ones, which are the rank and the name of the run."""
    metrics = dict.fromkeys(name for entry in group.entries for name in entry.run.metrics if name.count("/") < 2)
    metrics.pop(group.metric, None)
    loss = f"{group.metric.partition('/')[0]}/loss"
    losses = [loss] if loss in metrics else []
    columns = [Column(key, key, partial(_key, key=key)) for key in group.keys]
    columns.append(Column("value" if not group.metric else group.metric, group.metric, _value, decimals))
    columns += [Column(name, name, partial(_metric, name=name), decimals) for name in losses]
    columns += COSTS
    columns += [Column(name, name, partial(_metric, name=name), decimals, more=True) for name in metrics if name not in losses]
    return [*columns, *MORE]


def _key(entry: Entry, key: str) -> Value:
    return key_value(entry.run, key)


def _value(entry: Entry) -> Value:
    return entry.value


def _metric(entry: Entry, name: str) -> Value:
    return entry.run.metrics.get(name)


def _cost(entry: Entry, key: str) -> Value:
    return entry.run.costs.get(key)


def _epochs(entry: Entry) -> Value:
    return None if entry.run.epochs is None else float(entry.run.epochs)


def _seconds(entry: Entry) -> Value:
    return entry.run.seconds


def _starts(entry: Entry) -> Value:
    return float(entry.run.starts)


def _started(entry: Entry) -> Value:
    return entry.run.started[:19].replace("T", " ")


COSTS = [
    Column("parameters", "params, M", partial(_cost, key="parameters"), lambda n: f"{n / 1e6:.2f}", hint="millions of parameters"),
    Column(
        "multiply_adds", "mult-adds, G", partial(_cost, key="multiply_adds"), lambda n: significant(n / 1e9),
        hint="billions of multiply-adds in the forward pass of one image",
    ),
    Column(
        "images_per_s", "images/s", partial(_cost, key="images_per_s"), significant,
        hint="training speed of all processes together: the median over the run",
    ),
    Column("epochs", "epochs", _epochs, lambda n: f"{n:.0f}"),
    Column("seconds", "duration", _seconds, duration, hint="of the last start of the run, with its final evaluation"),
]  # fmt: skip
MORE = [
    Column(
        "data_wait", "data wait", partial(_cost, key="data_wait"), lambda n: f"{n:.0%}", more=True,
        hint="fraction of time in which training waited for batches",
    ),
    Column(
        "peak_memory_mb", "memory, MB", partial(_cost, key="peak_memory_mb"), lambda n: f"{n:,.0f}", more=True,
        hint="peak memory of the first process: of its GPU, or without one its resident memory since it began",
    ),
    Column("device", "device", partial(_cost, key="device"), more=True),
    Column("starts", "starts", _starts, lambda n: f"{n:.0f}", more=True, hint="how often the run was started"),
    Column("started", "started", _started, more=True, hint="time of the first start"),
    Column("commit", "commit", lambda entry: entry.run.commit, more=True, hint="git commit of the code, at the last start"),
]  # fmt: skip
