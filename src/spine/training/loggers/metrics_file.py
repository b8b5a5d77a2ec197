"""Logger that writes metrics.csv in every run."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from spine.console import process_rank

ROWS_IN_MEMORY = 20


class MetricsFile(Logger):
    """Writes metrics.csv: one row for each call, one column for each metric.

    Cells without a value are empty.

    Unlike Lightning's CSVLogger it continues the file of a resumed run, and keeps the rows up to
    the checkpoint.
    """

    def __init__(self, path: Path, keep_rows: int = 0):
        """`keep_rows`: number of rows of an existing file that are kept; the others are dropped."""
        super().__init__()
        self.path = path
        self.rows = 0  # in the file and in memory
        self.columns: list[str] = []
        self.unwritten: list[dict[str, float]] = []
        self.kept: list[dict[str, float]] = []  # the rows of an existing file that are kept
        if keep_rows > 0 and path.is_file():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                rows = [row for row, _ in zip(reader, range(keep_rows), strict=False)]
                self.columns = list(reader.fieldnames or [])
            self.rows = len(rows)
            self.kept = [{key: float(value) for key, value in row.items() if value} for row in rows]
            self._rewrite(rows)
        elif process_rank() == 0:
            path.unlink(missing_ok=True)

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """Empty: each run has one file."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, object] | Namespace, *args: object, **kwargs: object) -> None:
        """Does nothing: config.json holds the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds a row."""
        self.unwritten.append({**metrics, "step": -1 if step is None else step})
        self.rows += 1
        if len(self.unwritten) >= ROWS_IN_MEMORY:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Writes the rows in memory to disk."""
        rows, self.unwritten = self.unwritten, []
        new = sorted({key for row in rows for key in row} - set(self.columns))
        if new and self.columns and self.path.is_file():
            with self.path.open(newline="") as file:
                earlier = list(csv.DictReader(file))
            self.columns += new
            self._rewrite([*earlier, *rows])
            return
        self.columns += new
        if rows:
            is_new = not self.path.is_file()
            with self.path.open("a", newline="") as file:
                writer = csv.DictWriter(file, self.columns)
                if is_new:
                    writer.writeheader()
                writer.writerows(rows)

    def _rewrite(self, rows: Iterable[Mapping[str, object]]) -> None:
        part = self.path.with_name(f".{self.path.name}.part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        part.replace(self.path)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the rows in memory to disk."""
        self.save()
