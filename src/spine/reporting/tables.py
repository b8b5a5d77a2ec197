"""Tables of results for the terminal."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

MAX_ROWS = 24  # of a table of results; with more metrics, those of single classes (val/IoU/road) are left out

log = logging.getLogger(__name__)


def print_results(folder: Path, monitor: str, values: Mapping[str, float], seconds: float) -> None:
    """Prints the results of a run as a table, and its folder.

    The row of the metric `monitor` is bold.
    """
    table = Table(title=f"Results after {seconds:.0f} s", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in values.items():
        if name.count("/") < 2 or len(values) <= MAX_ROWS:
            table.add_row(name, f"{value:.4f}", style="bold" if name == monitor else None)
    console = Console()
    with console.capture() as capture:
        console.print(table)
    log.info("%sRun folder: %s", capture.get(), folder)


def sweep_table(folder: Path) -> None:
    """Prints a table of the runs in the folder of a sweep.

    Each row has the metric and the seconds of a run, or the reason of its failure.
    """
    table = Table(title=f"Sweep {folder}", title_justify="left")
    for column in ("run", "metric", "value", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for run in sorted(path for path in folder.glob("*") if path.is_dir()):
        if (run / "metrics.json").is_file():
            content = json.loads((run / "metrics.json").read_text())
            value = content["metrics"].get(content["monitor"])
            table.add_row(run.name, content["monitor"], "-" if value is None else f"{value:.4f}", f"{content['seconds']:.0f}")
        elif (run / "error.txt").is_file():
            reason = (run / "error.txt").read_text().strip() or "no reason was written"
            table.add_row(run.name, "failed", reason.splitlines()[0], "")
        elif (run / "stopped.json").is_file():
            table.add_row(run.name, "stopped", f"in epoch {json.loads((run / 'stopped.json').read_text())['epoch']}", "")
    if table.row_count:
        Console().print(table)
