"""Groups runs that can be compared, and ranks them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spine.errors import InputError, nearest
from spine.reporting.run_record import RunRecord, part_name

LOWER_IS_BETTER = ("loss", "nme", "error", "perplexity", "ece")  # metrics whose last part has one of these names
MAX_CONFIG_COLUMNS = 6  # for runs whose command lines do not say in what they differ
NAMED_BY_VALUE = ("backbone", "experiment")  # keys whose value alone is clear in a label
NOT_OF_A_RUN = ("sweep", "logger")  # keys that say how runs are started and logged, and not what they are
STATUS_ORDER = ("finished", "running", "pruned", "stopped", "interrupted", "failed", "damaged", "not started")


@dataclass
class Entry:
    """One row of a leaderboard."""

    run: RunRecord
    name: str  # the shortest end of the path that no other run has
    label: str = ""  # in what the run differs from the others, such as "vit lr=0.001"
    rank: int | None = None  # None if the run is not finished or was not measured
    value: float = math.nan  # of the metric; of an unfinished run, the best one so far


@dataclass
class Group:
    """Runs of one task and data set, sorted by one metric, the best first."""

    title: str
    metric: str
    maximize: bool
    entries: list[Entry]
    keys: list[str]  # in which the command lines of the runs differ


def make_groups(records: Sequence[RunRecord], metric: str | None = None, maximize: bool | None = None) -> list[Group]:
    """Returns the groups of runs, the largest first.

    `metric`: sorts by this metric; by default, by the one that selects each run's best checkpoint.
    `maximize`: whether more of `metric` is better; None: it follows from its name. Raises InputError
    if no run has the metric.
    """
    if metric is not None:
        _check_metric(metric, records)
    names = shortest_names([record.folder for record in records])
    monitors = {_comparable(record): (record.monitor, record.maximize) for record in records if record.monitor}
    found: dict[tuple[str, ...], list[Entry]] = {}
    for record, name in zip(records, names, strict=True):
        own = (record.monitor, record.maximize) if record.monitor else monitors.get(_comparable(record), ("val/loss", False))
        if metric is not None:
            own = metric, own[1] if metric == own[0] else _is_maximized(metric)
        better = own[1] if maximize is None else maximize
        entry = Entry(record, name, value=record.best_so_far(own[0], better))
        found.setdefault((*_comparable(record), own[0], "max" if better else "min"), []).append(entry)
    groups = [
        _ranked(Group(_title(entries[0].run), key[-2], key[-1] == "max", entries, []))
        for key, entries in found.items()
    ]  # fmt: skip
    return sorted(groups, key=lambda group: (not group.title, -len(group.entries)))


def _comparable(record: RunRecord) -> tuple[str, str, str]:
    return record.task, record.dataset, record.split


def _title(record: RunRecord) -> str:
    if not record.task:
        return ""
    title = f"{record.task} on {record.dataset or 'unknown data'}"
    return f"Evaluation of {title}, {record.split} split" if record.split else title


def _check_metric(metric: str, records: Sequence[RunRecord]) -> None:
    known = sorted({name for record in records for name in (*record.metrics, *record.history) if name.count("/") < 2})
    if not any(metric in record.metrics or metric in record.history for record in records):
        raise InputError(f"No run has the metric '{metric}'.{nearest(metric, known)} Choices: {', '.join(known) or 'none'}.")


def _is_maximized(metric: str) -> bool:
    return not any(word in metric.lower().rpartition("/")[2].split("_") for word in LOWER_IS_BETTER)


def _ranked(group: Group) -> Group:
    """Sorts the entries of a group and fills in ranks, differing keys and labels. Equal values have equal ranks."""
    sign = -1 if group.maximize else 1
    for entry in group.entries:
        entry.value = entry.value if math.isfinite(entry.value) else math.nan
    group.entries.sort(
        key=lambda entry: (
            STATUS_ORDER.index(entry.run.status) if entry.run.status in STATUS_ORDER else len(STATUS_ORDER), math.isnan(entry.value),
            0.0 if math.isnan(entry.value) else sign * entry.value, entry.name,
        )
    )  # fmt: skip
    measured = [entry for entry in group.entries if entry.run.status == "finished" and not math.isnan(entry.value)]
    for i, entry in enumerate(measured):
        tied = i > 0 and entry.value == measured[i - 1].value
        entry.rank = measured[i - 1].rank if tied else i + 1
    group.keys = differing_keys([entry.run for entry in group.entries])
    for entry, label in zip(group.entries, _labels([entry.run for entry in group.entries], group.keys), strict=True):
        entry.label = label
    labels = [entry.label for entry in group.entries]
    for entry in group.entries:
        if not entry.label or labels.count(entry.label) > 1:
            entry.label = f"{entry.label} {entry.name}".strip()
    return group


def differing_keys(records: Sequence[RunRecord]) -> list[str]:
    """Returns the keys of the command line in which runs differ, or keys of the configuration if there are none."""
    given = dict.fromkeys(key for record in records for key in record.overrides if key.partition(".")[0] not in NOT_OF_A_RUN)
    keys = [key for key in given if len({key_value(record, key) for record in records}) > 1]
    configs = [record.config for record in records if record.config]
    return keys or differing_config_keys(configs)[:MAX_CONFIG_COLUMNS]


def differing_config_keys(configs: Sequence[dict[str, str]]) -> list[str]:
    """Returns the dotted keys whose values differ between flat configurations, or that some of them lack."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({config.get(key) for config in configs}) > 1]


def key_value(record: RunRecord, key: str) -> str:
    """Returns the value of a key of the command line: as given there, else as in the configuration."""
    if key in record.overrides:
        return record.overrides[key]
    if target := record.config.get(f"{key}._target_"):  # a group, such as backbone
        return part_name(target)
    return record.config.get(key, "")


def _labels(records: Sequence[RunRecord], keys: Sequence[str]) -> list[str]:
    """Returns a short text for each run, with the values of as few keys as tell the runs apart, short values first."""
    parts = {key: [_label_part(record, key) for record in records] for key in keys}
    labels = [""] * len(records)
    for key in sorted(keys, key=lambda key: (key not in NAMED_BY_VALUE, sum(map(len, parts[key])))):
        longer = [f"{label} {part}".strip() for label, part in zip(labels, parts[key], strict=True)]
        if len(set(longer)) > len(set(labels)):
            labels = longer
    return labels


def _label_part(record: RunRecord, key: str) -> str:
    value, last = key_value(record, key), key.rpartition(".")[2]
    return value if key in NAMED_BY_VALUE or not value else f"{last}={value}"


def shortest_names(folders: Sequence[Path]) -> list[str]:
    """Returns the shortest end of each path, in whole parts, that tells it from the others."""
    taken: dict[str, int] = {}
    ends = [[os.sep.join(folder.parts[-n:]) for n in range(1, len(folder.parts) + 1)] for folder in folders]
    for own in ends:
        for end in own:
            taken[end] = taken.get(end, 0) + 1
    return [next((end for end in own if taken[end] == 1), str(folder)) for own, folder in zip(ends, folders, strict=True)]
