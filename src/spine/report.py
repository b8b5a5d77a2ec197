"""What a run leaves for its user: the table of results, the curves, the table of a sweep."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

log = logging.getLogger(__name__)
NOT_DRAWN = ("epoch", "step", "train/images_per_s", "train/data_wait")
OF_STEPS = ("train/loss_step", "train/lr", "train/grad_norm")


def draw_curves(folder: Path) -> None:
    """Draws curves.png from metrics.csv, over the number of finished epochs."""
    from spine.pictures import curves  # matplotlib takes a second

    path = folder / "metrics.csv"
    if not path.is_file():
        return
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("epoch")]
    epochs = max((float(row["epoch"]) for row in rows), default=0.0) + 1
    steps = max((float(row["step"]) for row in rows), default=0.0) + 1
    history: dict[str, dict[float, float]] = {}
    for row in rows:
        for name, value in row.items():
            if value and name not in NOT_DRAWN and name.count("/") < 2:
                x = (float(row["step"]) + 1) * epochs / steps if name in OF_STEPS else float(row["epoch"]) + 1
                history.setdefault(name, {})[x] = float(value)
    if history:
        figure = curves({name: sorted(points.items()) for name, points in history.items()})
        figure.savefig(folder / "curves.png")


def log_summary(loggers: Iterable[Logger], values: dict[str, float]) -> None:
    """Puts the result of a run into the summary of its W&B run; the curves end with the last epoch."""
    from pytorch_lightning.loggers import WandbLogger

    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update({f"best/{name}": value for name, value in values.items()})


def print_results(folder: Path, monitor: str, values: dict[str, float], seconds: float) -> None:
    """Prints the table of results and the folder."""
    table = Table(title=f"Results after {seconds:.0f} s", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in values.items():
        if name.count("/") < 2 or len(values) <= 24:
            table.add_row(name, f"{value:.4f}", style="bold" if name == monitor else None)
    console = Console()
    with console.capture() as capture:
        console.print(table)
    log.info("%sRun folder: %s", capture.get(), folder)


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
            reason = (run / "error.txt").read_text().strip() or "no reason was written"
            table.add_row(run.name, "failed", reason.splitlines()[0], "")
        elif (run / "stopped.json").is_file():
            table.add_row(run.name, "stopped", f"in epoch {json.loads((run / 'stopped.json').read_text())['epoch']}", "")
    if table.row_count:
        Console().print(table)
