"""Tables of results for the terminal."""

from __future__ import annotations

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
