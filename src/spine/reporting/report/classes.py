"""The table of classes or keypoints of a report, and its confusion matrix."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spine.reporting.confusions import confusion_file
from spine.reporting.tables import classes_file

MAX_CELLS_WITH_NUMBERS = 14  # with more classes, the cells of the matrix hold no numbers
MAX_CLASSES = 40  # with more, only the most frequent confusions are shown
MAX_CONFUSIONS = 12


@dataclass(frozen=True)
class Cell:
    """A cell of a table. `sort`: its value, or empty. `share`: the length of the bar behind it, 0 to 1."""

    text: str
    sort: float | str = ""
    share: float | None = None


@dataclass(frozen=True)
class ClassTable:
    """One row for each class or keypoint."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def read_classes(folder: Path, split: str) -> ClassTable | None:
    """Returns the table that a run has written to <split>_classes.csv, or None. The least accurate class comes first."""
    path = classes_file(folder, split)
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns, rows = list(reader.fieldnames or ()), list(reader)
    rows.sort(key=lambda row: float(row[columns[2]] or math.inf))
    title = {"class": "Classes"}.get(columns[0], f"{columns[0].capitalize()}s")
    return ClassTable(title, columns, [[_cell(number, name, row[name]) for number, name in enumerate(columns)] for row in rows])


def _cell(number: int, name: str, value: str) -> Cell:
    if number == 0:
        return Cell(value, value)
    if not value:
        return Cell("-")
    if number == 1:
        return Cell(f"{int(float(value)):,}", float(value))
    is_fraction = name != "pixels" and 0 <= float(value) <= 1
    return Cell(
        f"{float(value):.4f}" if is_fraction else f"{float(value):.2f}", float(value), float(value) if is_fraction else None
    )


@dataclass(frozen=True)
class Confusion:
    """How often samples or pixels of a class were predicted as another one."""

    truth: str
    prediction: str
    count: int
    fraction: float  # of the ground truth class


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix. `rows`: the cells of each ground truth class; empty if there are more than MAX_CLASSES."""

    classes: Sequence[str]
    rows: Sequence[Sequence[Confusion]]
    most: Sequence[Confusion]  # the most frequent confusions
    numbered: bool  # whether the cells have room for numbers


def read_confusion(folder: Path, split: str) -> Matrix | None:
    """Returns the confusion matrix that a run has written to <split>_confusion.csv, or None."""
    path = confusion_file(folder, split)
    if not path.is_file():
        return None
    counts: dict[str, dict[str, int]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            counts.setdefault(row["truth"], {})[row["prediction"]] = int(row["count"])
    classes = list(counts)
    totals = {name: max(1, sum(row.values())) for name, row in counts.items()}

    def confusion(truth: str, prediction: str) -> Confusion:
        count = counts[truth].get(prediction, 0)
        return Confusion(truth, prediction, count, count / totals[truth])

    wrong = [confusion(truth, said) for truth, row in counts.items() for said, count in row.items() if truth != said and count]
    wrong.sort(key=lambda each: -each.fraction)
    rows = [[confusion(truth, said) for said in classes] for truth in classes] if len(classes) <= MAX_CLASSES else []
    return Matrix(classes, rows, wrong[:MAX_CONFUSIONS], len(classes) <= MAX_CELLS_WITH_NUMBERS)
