"""The leaderboard as one HTML page, which needs no other file and no network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from spine.reporting.leaderboard.columns import Column, group_columns
from spine.reporting.leaderboard.pictures import embedded_figures
from spine.reporting.leaderboard.ranking import Entry, Group
from spine.reporting.leaderboard.seeds import seed_means, seed_titles
from spine.reporting.leaderboard.tables import title
from spine.reporting.pages.page import finite, relative_link, thin, write_page
from spine.reporting.provenance import Provenance

SELECTED = 5  # runs that are selected when the page is opened
STATUSES = ("finished", "running", "pruned", "stopped", "interrupted", "failed", "damaged", "not started")

Plain = str | int | float | None
Row = dict[str, object]


def write_leaderboard(path: Path, groups: Sequence[Group], folders: Sequence[Path], made_by: Provenance) -> None:
    """Writes the page. `folders`: where the runs were looked for. `made_by`: time and command of the page."""
    counts = Counter(entry.run.status for group in groups for entry in group.entries)
    content = {
        "folders": [str(folder) for folder in folders],
        "made_by": made_by,
        "counts": {status: counts[status] for status in STATUSES if counts[status]},
        "total": counts.total(),
        "groups": [_group_table(group, path.parent) for group in groups],
        "data": _data(groups, path.parent),
    }
    write_page(path, "spine.reporting.leaderboard", "leaderboard.html", content)


def _group_table(group: Group, out: Path) -> Row:
    """Returns what the template needs to write the table of a group, which works without JavaScript."""
    columns = group_columns(group)
    values = [entry.value for entry in group.entries if entry.rank is not None]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    rows: list[Row] = []
    for entry in group.entries:
        # the length of a bar behind the metric: from the worst run to the best
        share = (entry.value - low) / (high - low) if entry.rank is not None and high > low else 0.0
        rows.append({
            "entry": entry,
            "link": relative_link(entry.run.folder, out),
            "cells": [_cell(column, entry) for column in columns],
            "share": share if group.maximize else 1.0 - share if entry.rank is not None and high > low else 0.0,
        })  # fmt: skip
    means = [{"cells": mean.cells(), "settings": len(mean.setting)} for mean in seed_means(group)]
    return {
        "title": title(group), "metric": group.metric, "columns": columns, "rows": rows,
        "means": means, "mean_titles": seed_titles(group),
    }  # fmt: skip


def _cell(column: Column, entry: Entry) -> Row:
    value = column.value(entry)
    return {"text": column.cell(entry), "sort": "" if isinstance(value, float) and math.isnan(value) else value}


# Data of the scripts


def _data(groups: Sequence[Group], out: Path) -> Row:
    """Returns what the scripts draw: configurations, curves, costs and figures of all runs."""
    entries = [entry for group in groups for entry in group.entries]
    configs = [entry.run.config for entry in entries if entry.run.config]
    common = {key: value for key, value in (configs or [{}])[0].items() if all(config.get(key) == value for config in configs)}
    figures = embedded_figures(groups)
    numbers = {id(entry): i for i, entry in enumerate(entries)}
    return {
        "runs": [_run(entry, common, figures.get(entry.run.folder, {}), out) for entry in entries],
        "groups": [
            {"metric": group.metric, "maximize": group.maximize, "runs": [numbers[id(entry)] for entry in group.entries]}
            for group in groups
        ],
        "common": common,
        "selected": SELECTED,
    }


def _run(entry: Entry, common: Mapping[str, str], figures: Mapping[str, str], out: Path) -> Row:
    run = entry.run
    known = run.starts == 1 and run.epochs and math.isfinite(run.seconds)  # `seconds` is of the last start
    return {
        "name": entry.name,
        "label": entry.label,
        "rank": entry.rank,
        "status": run.status,
        "value": finite(entry.value),
        "costs": {key: finite(value) if isinstance(value, float) else value for key, value in run.costs.items()},
        "secondsPerEpoch": run.seconds / run.epochs if known and run.epochs else None,
        "config": {key: value for key, value in run.config.items() if key not in common} if run.config else None,
        "history": {name: thin(points) for name, points in run.history.items()},
        "figures": figures,
        "originals": {name: relative_link(run.folder / "figures" / f"{name}.png", out) for name in figures},
    }
