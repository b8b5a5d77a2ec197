"""Rows of the Arrow and Parquet files that Hugging Face's `datasets` writes, by their number. Needs pyarrow only."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spine.data.tables import import_pyarrow
from spine.errors import InputError

GROUPS_KEPT = 2  # row groups of Parquet files that a process keeps
BATCH_ROWS = 4096  # of a column that are read at once


class ArrowRows:
    """The rows of several files with the same columns.

    Arrow files are mapped into memory, which all processes share. Of a Parquet file, the row group of a row is read
    when the row is needed: `rows_per_read` rows on average.
    """

    def __init__(self, paths: Sequence[Path]):
        """Raises InputError for a file that is neither, or with other columns than the first one."""
        import_pyarrow()
        self.paths, self.parquet, self.in_memory = list(paths), paths[0].suffix == ".parquet", False
        self.files: list[Any] = []  # ParquetFile, or the record batches of an Arrow file
        self.groups: OrderedDict[tuple[int, tuple[str, ...]], Any] = OrderedDict()  # the last row groups that were read
        self._open()
        first = self._schema(0)
        for number, path in enumerate(paths):
            if self._schema(number).names != first.names:
                raise InputError(f"'{path}' has the columns {self._schema(number).names}, and '{paths[0]}' {first.names}.")
        self.schema, self.columns = first, list(first.names)
        self.places: list[tuple[int, int]] = []  # file, and row group or record batch
        sizes = []
        for number, file in enumerate(self.files):
            count = file.num_row_groups if self.parquet else len(file)
            for part in range(count):
                self.places.append((number, part))
                sizes.append(file.metadata.row_group(part).num_rows if self.parquet else file[part].num_rows)
        self.starts = np.cumsum([0, *sizes])
        self.rows_per_read = int(self.starts[-1]) / max(1, len(sizes)) if self.parquet else 1.0

    def _open(self) -> None:
        arrow = import_pyarrow()
        for path in self.paths:
            try:
                if self.parquet:
                    self.files.append(arrow.parquet.ParquetFile(path))
                else:
                    source = arrow.memory_map(str(path))
                    with _reader(arrow, source) as reader:
                        self.files.append(
                            _batches(reader) or [arrow.record_batch([[]] * len(reader.schema), schema=reader.schema)]
                        )
            except (arrow.ArrowInvalid, OSError) as error:
                raise InputError(f"'{path}' cannot be read ({str(error).splitlines()[0]}); it may be damaged.") from error

    def _schema(self, number: int) -> Any:
        return self.files[number].schema_arrow if self.parquet else self.files[number][0].schema

    def __getstate__(self) -> dict[str, object]:
        """Leaves out what is open; another process opens the files itself."""
        return self.__dict__ if self.in_memory else {**self.__dict__, "files": [], "groups": OrderedDict()}

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.starts[-1])

    def place(self, row: int) -> str:
        """Returns the file and the number of a row in it, for messages."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        number = self.places[part][0]
        first = next(i for i, place in enumerate(self.places) if place[0] == number)
        return f"{self.paths[number]}, row {row - int(self.starts[first])}"

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Returns values of a row by column."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        table = self._part(part, tuple(columns))
        return {name: table.column(name)[row - int(self.starts[part])].as_py() for name in columns}

    def _part(self, part: int, columns: tuple[str, ...]) -> Any:
        """Returns a record batch, or the columns of a row group."""
        if not self.files:
            self._open()
        number, inner = self.places[part]
        if not self.parquet:
            return self.files[number][inner]
        if (part, columns) not in self.groups:
            self.groups[part, columns] = self.files[number].read_row_group(inner, columns=list(columns), use_threads=False)
            if len(self.groups) > GROUPS_KEPT:
                self.groups.popitem(last=False)
        self.groups.move_to_end((part, columns))
        return self.groups[part, columns]

    def batches(self, column: str) -> Iterator[Any]:
        """Yields the values of a column as pyarrow arrays, in order."""
        for file in self.files:
            if self.parquet:
                yield from (batch.column(column) for batch in file.iter_batches(BATCH_ROWS, columns=[column]))
            else:
                yield from (batch.column(column) for batch in file)

    def keep_in_memory(self, columns: Sequence[str]) -> None:
        """Reads all rows of the columns, so that Parquet files are not read again. Processes that are forked later share them."""
        if self.parquet:
            self.files = [file.read(columns=list(columns)).to_batches() for file in self.files]
            self.places = [(number, part) for number, file in enumerate(self.files) for part in range(len(file))]
            self.starts = np.cumsum([0, *(self.files[number][part].num_rows for number, part in self.places)])
            self.parquet, self.in_memory = False, True

    def features(self) -> dict[str, dict[str, Any]]:
        """Returns the features that `datasets` stores with the columns, by column; empty for files of other programs."""
        try:
            return dict(json.loads((self.schema.metadata or {})[b"huggingface"])["info"]["features"])
        except (KeyError, ValueError, TypeError):
            return {}


def _reader(arrow: Any, source: Any) -> Any:
    """Returns the reader of an Arrow file, which is a stream (save_to_disk) or a file with an index."""
    try:
        return arrow.ipc.open_stream(source)
    except arrow.ArrowInvalid:
        return arrow.ipc.open_file(source)


def _batches(reader: Any) -> list[Any]:
    if hasattr(reader, "num_record_batches"):
        return [reader.get_batch(i) for i in range(reader.num_record_batches)]
    return list(reader)
