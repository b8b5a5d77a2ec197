"""The leaderboard on the terminal and as a CSV file."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spine.reporting.leaderboard.columns import Value, group_columns
from spine.reporting.leaderboard.ranking import Group
from spine.reporting.leaderboard.seeds import SeedMean, seed_means, seed_titles
from spine.reporting.sweeps import WIDE


def print_leaderboard(groups: Sequence[Group]) -> None:
    """Prints one table for each group of runs, and below it why runs are not finished."""
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    for group in groups:
        console.print(_table(group))
        for entry in group.entries:
            if entry.run.reason:
                console.print(Text(f"{entry.name} {entry.run.status}: {entry.run.reason}"))
        if means := seed_means(group):
            console.print(_seed_table(group, means))
        console.print()


def title(group: Group) -> str:
    """Returns the title of a group: what was trained, and which metric sorts it."""
    order = "higher is better" if group.maximize else "lower is better"
    return f"{group.title}: {group.metric}, {order}" if group.title else "Runs whose configuration cannot be read"


def _table(group: Group) -> Table:
    columns = [column for column in group_columns(group) if not column.more]
    table = Table(title=Text(title(group)), title_justify="left")
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("run", overflow="fold")
    for column in columns:
        number = column.text is not None
        table.add_column(Text(column.title), justify="right" if number else "left", overflow="fold", no_wrap=number)
    for entry in group.entries:
        first = str(entry.rank) if entry.rank else entry.run.status
        style = "bold" if entry.rank == 1 else "dim" if entry.rank is None else None
        table.add_row(*map(Text, (first, entry.name, *(column.cell(entry) for column in columns))), style=style)
    return table


def _seed_table(group: Group, means: Sequence[SeedMean]) -> Table:
    table = Table(title="Means over seeds", title_justify="left")
    settings = len(means[0].setting)
    for i, name in enumerate(seed_titles(group)):
        table.add_column(Text(name), justify="left" if i < settings else "right", overflow="fold")
    for each in means:
        table.add_row(*map(Text, each.cells()))
    return table


def write_csv(path: Path, groups: Sequence[Group]) -> None:
    """Writes one row for each run of all groups, with unrounded numbers. Missing values are empty."""
    rows = [row for group in groups for row in _rows(group)]
    names = dict.fromkeys(name for row in rows for name in row)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, list(names), restval="")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def _rows(group: Group) -> list[dict[str, Value]]:
    columns, rows = group_columns(group), []
    for entry in group.entries:
        run = entry.run
        row: dict[str, Value] = {
            "task": run.task, "dataset": run.dataset, "split": run.split or "val", "metric": group.metric,
            "rank": entry.rank, "status": run.status, "run": entry.name,
        }  # fmt: skip
        row |= {column.key: column.value(entry) for column in columns}
        row |= {"reason": run.reason, "folder": str(run.folder)}
        rows.append({key: "" if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()})
    return rows
