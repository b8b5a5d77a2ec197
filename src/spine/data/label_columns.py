"""Reads the classes of images from columns of a table: names or numbers, several names, or columns of 0 and 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spine.data import faults
from spine.data.image_files import format_names
from spine.data.tables import ArrayBuilder
from spine.errors import InputError

BITS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "False": 0, "True": 1}  # values of columns of 0 and 1


class Codes:
    """Numbers the different values of a column in the order in which they occur."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def add(self, column: Any) -> np.ndarray:
        """Returns the number of each value of a pyarrow array (N,) int32; -1 for nulls and empty text."""
        encoded = column.cast("string").dictionary_encode()
        numbers = [self.names.setdefault(text, len(self.names)) if text else -1 for text in encoded.dictionary.to_pylist()]
        table = np.array([*numbers, -1], np.int32)
        return table[encoded.indices.fill_null(len(numbers)).to_numpy(zero_copy_only=False)]


class LabelColumns:
    """Collects the classes of the rows of a table, batch by batch.

    After the last batch, `names` are the values that occurred, and `members` (M, 2) int the pairs of a row
    and the number of one of its values.
    """

    def __init__(self, path: Path, column: str | None, separator: str | None, columns: Sequence[str]):
        """`column`: one class, or with `separator` several. `columns`: instead of it, one column of 0 and 1 for each class."""
        if separator == "":
            raise InputError("dataset.separator is empty; it is the text between the classes of an image, such as ;")
        self.path, self.column, self.separator, self.bits = path, column, separator, tuple(columns)
        self.several = separator is not None or bool(columns)
        self.codes, self.rows = Codes(), 0
        self.pairs = ArrayBuilder(np.int32)
        for name in columns:
            self.codes.names[name] = len(self.codes.names)

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the columns that `add` reads."""
        return self.bits or (() if self.column is None else (self.column,))

    @property
    def names(self) -> list[str]:
        """The values that occurred."""
        return list(self.codes.names)

    @property
    def members(self) -> np.ndarray:
        """Pairs of a row and one of its values, (M, 2) int."""
        return self.pairs.finish().reshape(-1, 2)

    def add(self, batch: Mapping[str, Any], used: np.ndarray) -> np.ndarray:
        """Adds the rows of a batch of `needed` columns. Returns which of them have a class that can be read, (N,) bool.

        `used` (N,) bool: rows of the split. The faults of others are those of another split. Raises InputError for a used row
        without a class, or with a value other than 0 and 1.
        """
        readable = np.ones(len(used), bool)
        if self.bits:
            rows, values, readable = self._from_bits(batch, used)
        elif self.column is None:
            return readable
        else:
            column = batch[self.column]
            lists = "list" in str(column.type)
            self.several |= lists
            if lists or self.separator is not None:
                rows, values = self._from_lists(column)
            else:
                rows, values, readable = self._from_names(column, used)
        self.pairs.add(np.stack([rows + self.rows, values], axis=1))
        self.rows += len(used)
        return readable

    def _from_names(self, column: Any, used: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns rows and their values, and which rows have one."""
        values = self.codes.add(column)
        readable = values >= 0
        for row in np.flatnonzero(used & ~readable).tolist():
            self._report("missing_label", row, "has no value in", self.column, "rows are counted from 1, without the header")
        rows = np.flatnonzero(readable)
        return rows, values[rows], readable

    def _report(self, kind: str, row: int, what: str, column: str | None, hint: str) -> None:
        number = self.rows + row + 1
        faults.report(kind, f"Row {number} of '{self.path}' {what} column '{column}' ({hint}).", [f"{self.path}, row {number}"])

    def _from_lists(self, column: Any) -> tuple[np.ndarray, np.ndarray]:
        from pyarrow import compute

        if self.separator is not None:
            column = compute.split_pattern(column.cast("string"), self.separator)
        rows = compute.list_parent_indices(column).to_numpy()
        values = self.codes.add(compute.utf8_trim_whitespace(compute.list_flatten(column).cast("string")))
        pairs = np.unique(np.stack([rows, values], axis=1)[values >= 0], axis=0)
        return pairs[:, 0], pairs[:, 1]

    def _from_bits(self, batch: Mapping[str, Any], used: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns rows and their values, and which rows have 0 or 1 in all columns."""
        columns, readable = [], np.ones(len(used), bool)
        for name in self.bits:
            codes = Codes()
            numbers = codes.add(batch[name])
            names = list(codes.names)
            table = [*(BITS.get(text, -1) for text in names), -1]  # the last one is for rows without a value
            bits = np.array(table, np.int8)[numbers]
            for row in np.flatnonzero(used & (bits < 0)).tolist():
                missing = numbers[row] < 0
                what = "has no value in" if missing else f"has the value '{names[numbers[row]]}' in"
                self._report("missing_label" if missing else "unknown_label", row, what, name, "a column of a class has 0 and 1")
            readable &= bits >= 0
            columns.append(bits == 1)
        rows, values = np.nonzero(np.stack(columns, axis=1) & readable[:, None])
        return rows, values, readable


def class_numbers(
    found: Sequence[str],
    classes: Sequence[str] | None,
    of_training: Sequence[str],
    path: object,
    samples_of: Callable[[int], Iterable[object]],
) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the classes, and the class of each value in `found`, (len(found),) int32.

    `classes`: their names in order; None for the values `of_training`, sorted: by value if all are whole numbers, otherwise as text.
    Values that are no names may be numbers that count given `classes` from 0. `samples_of`: returns what the samples with the value
    `found[i]` are called, for the doctor. Raises InputError for a value that is no class; for the doctor, its number is -1.
    """
    given = classes is not None
    if classes is None:
        numeric = all(_is_number(name) for name in of_training)
        classes = sorted(of_training, key=lambda name: (int(name), name)) if numeric else sorted(of_training)
        known = "the rows of the training split have"
    else:
        known = "dataset.classes has"
    index = {name: number for number, name in enumerate(classes)}
    if given and not any(name in index for name in found):
        index = {name: int(name) for name in found if _is_number(name) and int(name) < len(classes)}
    for number, name in enumerate(found):
        if name not in index:
            faults.report(
                "unknown_label",
                f"'{path}' has the class '{name}'; {known} {len(classes)} classes: {format_names(classes)}. "
                f"Numbers count the names of dataset.classes from 0.",
                samples_of(number),
            )
    return tuple(classes), np.array([index.get(name, -1) for name in found], np.int32)


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii()
