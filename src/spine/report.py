"""What a run leaves for a person: the table of results, the curves, the table of a sweep."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

from rich.console import Console
from rich.table import Table


def draw_curves(folder: Path) -> None:
    """curves.png from metrics.csv and its predecessors."""
    from spine.pictures import curves  # matplotlib takes a second

    history: dict[str, dict[float, float]] = {}
    for path in sorted(folder.glob("metrics*.csv")):  # a run that went on from a checkpoint has several, the newest last
        with path.open() as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and row.get("epoch") and name not in ("epoch", "step") and name.count("/") < 2:
                        history.setdefault(name, {})[float(row["epoch"])] = float(value)
    if history:
        curves({name: sorted(points.items()) for name, points in history.items()}).savefig(folder / "curves.png")


def keep_history(folder: Path) -> None:
    """Puts metrics.csv aside, so that a run that goes on in the same folder does not overwrite what it measured before."""
    path = folder / "metrics.csv"
    if path.is_file():
        earlier = len(list(folder.glob("metrics.*.csv")))
        path.rename(folder / f"metrics.{earlier:03}.csv")  # sorts before metrics.csv


def results(folder: Path, monitor: str, values: dict[str, float], seconds: float, checkpoint: str) -> None:
    """Writes metrics.json and prints the table of results and the folder."""
    numbers = {
        key: None if math.isnan(value) else value for key, value in values.items()
    }  # JSON knows no nan: an absent class is null
    content = {"metrics": numbers, "monitor": monitor, "seconds": seconds, "checkpoint": checkpoint}
    (folder / "metrics.json").write_text(json.dumps(content, indent=2) + "\n")
    table = Table(title=f"Results after {seconds:.0f} s", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in values.items():
        if name.count("/") < 2 or len(values) <= 24:
            table.add_row(name, f"{value:.4f}", style="bold" if name == monitor else None)
    console = Console()
    console.print(table)
    console.print(f"Run folder: {folder}", soft_wrap=True, highlight=False)


def sweep_table(folder: Path) -> None:
    """Prints a line for every run under the folder of a sweep: its metric and seconds, or why it failed."""
    table = Table(title=f"Sweep {folder}", title_justify="left")
    for column in ("run", "metric", "value", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for run in sorted(path for path in folder.glob("*") if path.is_dir()):
        if (run / "metrics.json").is_file():
            content = json.loads((run / "metrics.json").read_text())
            value = content["metrics"].get(content["monitor"])
            table.add_row(run.name, content["monitor"], "-" if value is None else f"{value:.4f}", f"{content['seconds']:.0f}")
        elif (run / "error.txt").is_file():
            table.add_row(run.name, "failed", (run / "error.txt").read_text().splitlines()[0], "")
    if table.row_count:
        Console().print(table)
