"""metrics.csv, which every run writes."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from spine.console import process_rank


class MetricsFile(Logger):
    """metrics.csv: one row for each call, a column for each name, empty where a row has no value.

    Unlike Lightning's CSV logger it goes on with the file of a resumed run, which keeps the rows up to its checkpoint.
    """

    def __init__(self, path: Path, keep: int = 0):
        """`keep`: rows of an existing file that stay, the others are dropped."""
        super().__init__()
        self.path = path
        self.rows = 0  # in the file and unwritten
        self.columns: list[str] = []
        self.unwritten: list[dict[str, float]] = []
        if keep > 0 and path.is_file():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                kept = [row for row, _ in zip(reader, range(keep), strict=False)]
                self.columns = list(reader.fieldnames or [])
            self.rows = len(kept)
            self._rewrite(kept)
        elif process_rank() == 0:
            path.unlink(missing_ok=True)

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """There is one file a run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The configuration stands in config.json."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds a row."""
        self.unwritten.append({**metrics, "step": -1 if step is None else step})
        self.rows += 1
        if len(self.unwritten) >= 20:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Writes the rows to disk."""
        rows, self.unwritten = self.unwritten, []
        new = sorted({key for row in rows for key in row} - set(self.columns))
        if new and self.columns and self.path.is_file():
            with self.path.open(newline="") as file:
                earlier: list[dict[str, Any]] = list(csv.DictReader(file))
            self.columns += new
            self._rewrite([*earlier, *rows])
            return
        self.columns += new
        if rows:
            fresh = not self.path.is_file()
            with self.path.open("a", newline="") as file:
                writer = csv.DictWriter(file, self.columns)
                if fresh:
                    writer.writeheader()
                writer.writerows(rows)

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        part = self.path.with_name(f".{self.path.name}.part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        part.replace(self.path)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes what is left."""
        self.save()
