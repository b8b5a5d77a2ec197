"""Reads columns of CSV and Parquet files in batches, with pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from spine.data import faults
from spine.data.image_files import PackedNames, format_names
from spine.errors import InputError, nearest

BLOCK_BYTES = 1 << 22  # of a CSV file that are parsed at once
BATCH_ROWS = 1 << 16  # of a Parquet file that are read at once


def import_pyarrow() -> ModuleType:
    """Returns pyarrow with the parts that read files. Raises InputError if it is not installed."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "CSV and Parquet files are read with pyarrow, which is not installed: pip install -e .[data]."
        ) from error
    return pyarrow


class Table:
    """A CSV or Parquet file. Its values are read in batches, so that the whole file is never in memory."""

    def __init__(self, path: Path, delimiter: str | None = None):
        """`delimiter`: between the values of a CSV file; None: a tab in .tsv files, otherwise a comma.

        Raises InputError if the file does not exist or is not a table.
        """
        self.path, self.parquet = path, path.suffix.lower() in (".parquet", ".pq")
        self.delimiter = delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
        self.arrow = import_pyarrow()
        if not path.is_file():
            raise InputError(f"There is no file '{path}', where the list of images should be.")
        self.skipped: list[tuple[str, str]] = []  # for the doctor: text of rows that cannot be read, and a message
        try:
            self.columns: list[str] = list(
                self._open_parquet().schema_arrow.names if self.parquet else self._open_csv().schema.names
            )
        except (self.arrow.ArrowInvalid, OSError) as error:
            raise InputError(f"'{path}' is not a table that can be read ({_first_line(error)}).") from error

    def _open_parquet(self) -> Any:
        return self.arrow.parquet.ParquetFile(self.path)

    def _open_csv(self, columns: Mapping[str, str] | None = None) -> Any:
        """Returns a reader of the columns of a CSV file. For the doctor, it leaves out rows of another number of values."""
        csv = self.arrow.csv
        skips = self._skip_row if faults.is_collecting() else None
        types = {} if columns is None else {name: getattr(self.arrow, kind)() for name, kind in columns.items()}
        return csv.open_csv(
            self.path,
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=csv.ParseOptions(delimiter=self.delimiter, invalid_row_handler=skips),
            convert_options=csv.ConvertOptions(
                column_types=types, include_columns=list(types) or None, strings_can_be_null=False
            ),
        )

    def _skip_row(self, row: Any) -> str:
        """Called by pyarrow, in threads of its own, for a row of another number of values."""
        self.skipped.append(
            (row.text, f"'{self.path}' has the row '{row.text}' of {row.actual_columns} values, not {row.expected_columns}.")
        )
        return "skip"

    def need(self, column: str, key: str) -> str:
        """Returns the name of a column. Raises InputError, with the key to set, if the file does not have it."""
        if column not in self.columns:
            raise InputError(
                f"'{self.path}' has no column '{column}'.{nearest(column, self.columns)} Its columns are {format_names(self.columns)}; "
                f"set {key}."
            )
        return column

    def batches(self, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Yields the columns of some rows as pyarrow arrays. `columns`: their names, and the type "string" for CSV files.

        Raises InputError for a row with another number of values, or a value of another type.
        """
        try:
            if self.parquet:
                with self._open_parquet() as file:
                    for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                        yield {name: batch.column(name) for name in columns}
            else:
                with self._open_csv(columns) as reader:
                    for batch in reader:
                        yield {name: batch.column(name) for name in columns}
        except (self.arrow.ArrowInvalid, OSError) as error:
            raise InputError(f"'{self.path}' cannot be read ({_first_line(error)}).") from error
        for text, message in dict.fromkeys(self.skipped):
            faults.report("row_values", message, [f"{self.path}, row '{text}'"])
        self.arrow.default_memory_pool().release_unused()  # otherwise the memory of all batches stays with the process


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


class ArrayBuilder:
    """Collects the arrays of batches in one block of memory. Many small arrays would leave gaps that the system does not get back."""

    def __init__(self, kind: type[np.generic]):
        self.block, self.kind = bytearray(), kind

    def add(self, values: np.ndarray) -> None:
        """Adds an array."""
        self.block += values.astype(self.kind).tobytes()

    def finish(self) -> np.ndarray:
        """Returns all values, one after the other."""
        return np.frombuffer(self.block, self.kind)


class NameBuilder:
    """Collects names from string arrays into PackedNames."""

    def __init__(self) -> None:
        self.block, self.lengths = bytearray(), ArrayBuilder(np.int32)

    def add(self, names: Any) -> None:
        """Adds the values of a pyarrow array of large_string without nulls."""
        _, offsets, data = names.buffers()
        ends = np.frombuffer(offsets, np.int64)[names.offset : names.offset + len(names) + 1]
        if len(names):
            self.block += memoryview(data)[ends[0] : ends[-1]]
            self.lengths.add(np.diff(ends))

    def finish(self) -> PackedNames:
        """Returns the names."""
        return PackedNames.from_block(np.frombuffer(self.block, np.uint8), self.lengths.finish())
