"""The configuration of a run in its report: what differs from the defaults, and everything else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spine.reporting.run_record import Changes, RunRecord

FILE = "changes.json"
STANDARD = "default"  # the name of an option that need not be shown
NONE = "-"  # there is no such key


@dataclass(frozen=True)
class Change:
    """A key whose value is not the default."""

    key: str
    default: str
    value: str


@dataclass(frozen=True)
class Configuration:
    """The configuration of a run."""

    choices: dict[str, str]  # group -> option
    changes: Sequence[Change] | None  # None: the defaults are not known
    all: dict[str, str]  # dotted key -> value, of the complete configuration


def configuration_of(record: RunRecord, changes: Changes | None) -> Configuration:
    """Returns the configuration of a run. `changes`: in what it differs from the defaults, if that is known."""
    if changes is None:
        return Configuration({}, None, record.config)
    shown = {group: choice for group, choice in changes["choices"].items() if choice != STANDARD}
    values = [Change(key, _text(before), _text(after)) for key, (before, after) in changes["values"].items()]
    return Configuration(shown, values, record.config)


def _text(value: str | None) -> str:
    return NONE if value is None else value if value else '""'


def read_changes(folder: Path) -> Changes | None:
    """Returns the content of changes.json, or None for a run that has none."""
    try:
        return json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return None
