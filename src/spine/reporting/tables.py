"""Tables of results for the terminal."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

MAX_ROWS = 24  # of a table of results; with more metrics, those of single classes (val/IoU/road) are left out
MAX_CLASSES = 10  # in the table of the least accurate classes

log = logging.getLogger(__name__)


def print_results(folder: Path, monitor: str, values: Mapping[str, float], seconds: float, evaluation: str = "") -> None:
    """Prints the results of a run as a table, and its folder.

    The row of the metric `monitor` is bold. `evaluation`: how they were measured, see `Task.describe_evaluation`.
    """
    table = Table(title=f"Results after {seconds:.0f} s", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in values.items():
        if name.count("/") < 2 or len(values) <= MAX_ROWS:
            table.add_row(name, f"{value:.4f}", style="bold" if name == monitor else None)
    console = Console()
    classes = _table_of_classes(classes_file(folder, monitor.partition("/")[0]))
    with console.capture() as capture:
        for each in (table, *classes):
            console.print(each)
    how = f"Evaluation: {evaluation}\n" if evaluation else ""
    log.info("%s%sRun folder: %s", capture.get(), how, folder)


def classes_file(folder: Path, split: str) -> Path:
    """Returns the path of the table of classes of a split, in a run folder."""
    return folder / f"{split}_classes.csv"


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes rows with the same keys to a CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_results(path: Path, content: object) -> None:
    """Writes predictions to a JSON file. An existing one is replaced only when the new one is complete."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content))
    part.replace(path)


def _table_of_classes(path: Path) -> list[Table]:
    """Returns a table of the least accurate classes in a file of `classes_file`. Empty without a file.

    The columns are a name, a count and metrics; the first metric decides.
    """
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or ())
        rows = [row for row in reader if row[columns[2]]]
    rows.sort(key=lambda row: float(row[columns[2]]))
    plural = {"class": "classes"}.get(columns[0], f"{columns[0]}s")
    title = (
        plural.capitalize()
        if len(rows) <= MAX_CLASSES
        else f"The {MAX_CLASSES} least accurate of {len(rows)} {plural} ({path.name})"
    )
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    for row in rows[:MAX_CLASSES]:
        numbers = [f"{float(row[name]):.4f}" if row[name] else "" for name in columns[2:]]
        table.add_row(row[columns[0]], row[columns[1]], *numbers)
    return [table]
