"""Image classification from a list: a CSV or Parquet file with a row for each image."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spine.data import faults
from spine.data.image_files import (
    NUM_CHECKED,
    PackedNames,
    check_images,
    class_names,
    evenly_spaced,
    format_names,
    log_warning,
    need_root,
)
from spine.data.image_per_file import ImagePerFile
from spine.data.label_columns import Codes, LabelColumns, class_numbers
from spine.data.splits import Splits, configured_name, divide, divide_groups
from spine.data.tables import ArrayBuilder, NameBuilder, Table
from spine.errors import InputError
from spine.interfaces import Labels, RawSample

SPLITS = ("train", "val", "test")
COLUMNS = {"path": "path", "label": "label", "split": "split", "group": "group", "weight": "weight"}


class ImageList(ImagePerFile):
    """Images that a CSV or Parquet file lists, with columns for the path, the class, the split, the group and the weight.

    An image has one class, or several of them: then its label is (classes,) uint8 of 0 and 1.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"image", "label"})

    def __init__(
        self,
        split: str,
        *,
        root: str | None,
        file: str = "list.csv",
        images: str = "",
        suffix: str = "",
        columns: Mapping[str, str | None] | None = None,
        class_columns: list[str] | None = None,
        separator: str | None = None,
        delimiter: str | None = None,
        classes: list[str] | str | None = None,
        splits: Splits | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
    ):
        """`file`: the list, relative to root; `{split}` in it is the name of the split. `images`: the folder of the paths,
        relative to root; `suffix` is appended to each path.

        `columns`: names of the columns path, label, split, group and weight. All but path may be absent if their
        names are not given. The class is a name, or a number that counts `classes` from 0. An image has several
        classes if a cell holds several names between `separator`s, or if `class_columns` name a column of 0 and 1 for each class.
        `delimiter`: between the values of a CSV file; None: a tab for .tsv, otherwise a comma.
        `classes`: names in the order of the outputs, or a file relative to root with one name per line; None: the values of
        the training rows, sorted. `splits`: values of the column split.

        Without a column split, `val_fraction` of the rows, drawn with `split_seed`, are the validation split. Each
        class keeps its share, and rows of a group stay together. Raises InputError if the list cannot be
        read, has no rows of this split, or has a class that is not known.
        """
        base = need_root(root, "image_list")
        self.split, self.folder, self.suffix = split, base / images, suffix
        names = {key: (columns or {}).get(key, default) for key, default in COLUMNS.items()}
        if unknown := sorted(set(columns or {}) - set(COLUMNS)):
            raise InputError(f"dataset.columns has the key '{unknown[0]}'; its keys are {', '.join(COLUMNS)}.")
        name = configured_name(split, splits) or split
        self.paths = [base / file.replace("{split}", name)]
        if "{split}" in file and classes is None and not class_columns and split != "train":
            self.paths.append(base / file.replace("{split}", configured_name("train", splits) or "train"))
        if classes is not None:
            classes = class_names(base, classes)
        table = Table(self.paths[0], delimiter)
        columns_of = _present(table, names)
        for column in class_columns or ():
            table.need(column, "dataset.class_columns")
        labels = LabelColumns(table.path, columns_of["label"], separator, class_columns or ())
        rows = _Rows(table, columns_of, labels, None if "{split}" in file else name)
        if faults.is_collecting() and columns_of["split"] is not None and "{split}" not in file:
            rows.report_unknown_splits([configured_name(each, splits) or each for each in SPLITS])
        of_training = self._training_values(rows, columns_of, splits, separator, delimiter)
        divided = "{split}" not in file and columns_of["split"] is None
        chosen = np.arange(len(rows.kept)) if not divided else self._divide(rows, columns_of, val_fraction, split_seed)
        self._fill(rows, chosen, labels, classes if classes is not None else class_columns or None, of_training)
        if faults.is_collecting():
            self._report_repeated_rows(rows)

    def _training_values(
        self, rows: _Rows, columns: Mapping[str, str | None], splits: Splits | None, separator: str | None, delimiter: str | None
    ) -> list[str]:
        """Returns the different values of the label in the training rows."""
        if len(self.paths) > 1:
            if columns["label"] is None:
                return []
            table = Table(self.paths[1], delimiter)
            column = table.need(columns["label"], "dataset.columns.label")
            labels = LabelColumns(table.path, column, separator, ())
            for batch in table.batches({column: "string"}):
                labels.add(batch, np.zeros(len(batch[column]), bool))  # their faults are those of the training split
            return labels.names
        training = rows.split_codes.names.get(configured_name("train", splits) or "train")
        if columns["split"] is None or training is None:  # without training rows, all rows define the classes
            return rows.labels.names
        members = rows.labels.members
        used = np.unique(members[rows.of_split[members[:, 0]] == training, 1])
        return [rows.labels.names[number] for number in used]

    def _divide(self, rows: _Rows, columns: Mapping[str, str | None], fraction: float, seed: int) -> np.ndarray:
        """Returns the rows of this split."""
        count = len(rows.kept)
        if rows.labels.needed:
            members = rows.members(np.arange(count))
        else:
            members = np.stack([np.arange(count), np.zeros(count, int)], axis=1)
        if columns["group"] is not None or rows.labels.several:
            groups = np.arange(count) if rows.groups is None else rows.groups
            chosen = divide_groups(members, groups, count, self.split, fraction, seed)
        else:
            parts = []
            for number, name in enumerate(rows.labels.names or [""]):
                of_class = members[members[:, 1] == number, 0]
                parts.append(of_class[divide(len(of_class), self.split, fraction, (seed, zlib.crc32(name.encode())))])
            chosen = np.sort(np.concatenate(parts))
        if self.split == "train":
            log_warning(
                f"'{self.paths[0]}' has no column for the split: {len(chosen)} of its {count} rows are for training, the others for "
                f"validation (dataset.val_fraction={fraction}, dataset.split_seed={seed})."
            )
        return chosen

    def _fill(
        self, rows: _Rows, chosen: np.ndarray, labels: LabelColumns, classes: list[str] | None, of_training: list[str]
    ) -> None:
        """Keeps the chosen ones of the rows that were kept. The doctor goes on without those whose class is unknown."""
        self._need_rows(rows, chosen)
        self.targets: np.ndarray | None = None  # (N,) int32
        self.bits: np.ndarray | None = None  # (N, ceil(classes / 8)) uint8, packed
        self.labels = Labels()
        if labels.needed:
            chosen = self._fill_labels(rows, chosen, labels, classes, of_training)
            self._need_rows(rows, chosen)
        else:
            self.provides = frozenset({"image"})  # type: ignore[misc]
            log_warning(
                f"'{self.paths[0]}' has no column for the classes, so its images have no labels. To name it, set "
                f"dataset.columns.label=<column> or dataset.class_columns=[...]. Its columns: {format_names(rows.all_columns)}."
            )
        everything = len(chosen) == len(rows.kept)
        self.names: PackedNames = rows.names if everything else rows.names.select(chosen)
        self.rows_of_file = rows.kept[chosen] if faults.is_collecting() else None
        self.groups_of, self.weights = rows.groups, rows.weights
        if self.groups_of is not None:
            self.groups_of = self.groups_of[chosen]
        if self.weights is not None:
            self.weights = self.weights[chosen]

    def _need_rows(self, rows: _Rows, chosen: np.ndarray) -> None:
        """Raises InputError if no row is chosen."""
        if len(chosen):
            return
        column, usable = rows.columns["split"], " that can be used" if faults.is_collecting() else ""
        found = f" Values of its column '{column}': {format_names(rows.split_codes.names)}." if column else ""
        raise InputError(f"'{self.paths[0]}' has no row of the split '{self.split}'{usable}.{found}")

    def _fill_labels(
        self, rows: _Rows, chosen: np.ndarray, labels: LabelColumns, classes: list[str] | None, of_training: list[str]
    ) -> np.ndarray:
        """Keeps the classes of the chosen rows. Returns these rows without those whose class is unknown, which are faults."""
        members = rows.members(chosen)
        used = np.unique(members[:, 1])

        def images_of(number: int) -> list[Path]:
            return [self._path(rows.names[int(chosen[row])]) for row in members[members[:, 1] == used[number], 0]]

        names, numbers = class_numbers([labels.names[i] for i in used], classes, of_training, self.paths[0], images_of)
        table = np.zeros(len(labels.names), np.int32)
        table[used] = numbers
        if (numbers < 0).any():
            chosen = np.delete(chosen, np.unique(members[table[members[:, 1]] < 0, 0]))
            members = rows.members(chosen)
        self.labels = Labels(classes=names, several_classes=labels.several)
        if labels.several:
            self.bits = np.zeros((len(chosen), -(-len(names) // 8)), np.uint8)
            members[:, 1] = table[members[:, 1]]
            np.bitwise_or.at(self.bits, (members[:, 0], members[:, 1] // 8), (128 >> (members[:, 1] % 8)).astype(np.uint8))
        else:
            self.targets = table[members[:, 1]]
        return chosen

    def _report_repeated_rows(self, rows: _Rows) -> None:
        """Reports the images that several rows of the split name, for the doctor."""
        assert self.rows_of_file is not None
        rows_of: dict[str, list[int]] = {}
        for index in range(len(self)):
            rows_of.setdefault(self.names[index], []).append(index)
        for name, indices in rows_of.items():
            if len(indices) > 1:
                numbers = format_names(int(self.rows_of_file[index]) + 1 for index in indices)
                labels = {str(self.load_annotations(index).get("label")) for index in indices}
                different = ", with different classes" if len(labels) > 1 else ""
                message = f"'{self._path(name)}' is in the rows {numbers} of '{self.paths[0]}'{different}."
                faults.report("contradicting" if different else "repeated_rows", message, [self._path(name)])

    def check(self, needs: frozenset[str]) -> None:
        """Reads a few images. Logs a warning about classes without images."""
        if "label" in needs:
            counts = self._class_counts()
            if empty := [name for name, count in zip(self.labels.classes, counts, strict=True) if not count]:
                log_warning(
                    f"Split '{self.split}' of '{self.paths[0]}' has no image of {len(empty)} classes: {format_names(empty)}."
                )
        check_images([(self.path(i), None) for i in evenly_spaced(len(self), NUM_CHECKED)])

    def _class_counts(self) -> np.ndarray:
        count = len(self.labels.classes)
        if self.targets is not None:
            return np.bincount(self.targets, minlength=count)
        parts = [] if self.bits is None else np.array_split(self.bits, 64)  # all bits at once would take 8 times the memory
        return sum((np.unpackbits(part, axis=1)[:, :count].sum(axis=0) for part in parts), np.zeros(count, int))

    def path(self, index: int) -> Path:
        """Returns the file of an image."""
        return self._path(self.names[index])

    def _path(self, name: str) -> Path:
        return self.folder / (name + self.suffix)

    def shared_files(self) -> list[str]:
        """Returns the list."""
        return [str(path) for path in self.paths]

    def class_indices(self) -> np.ndarray | None:
        """Returns the class of each image, or None if images may have several, or none."""
        return self.targets

    def sample_weights(self) -> np.ndarray | None:
        """Returns the column weight."""
        return self.weights

    def groups(self) -> np.ndarray | None:
        """Returns the number of the group of each image, from the column group."""
        return self.groups_of

    def load_annotations(self, index: int) -> RawSample:
        """Returns the label: int, or (classes,) uint8 of 0 and 1. Nothing if the list has no classes."""
        if self.bits is not None:
            return {"label": np.unpackbits(self.bits[index])[: len(self.labels.classes)]}
        return {} if self.targets is None else {"label": int(self.targets[index])}


class _Rows:
    """The columns of a list, and the paths of the rows of one split."""

    def __init__(self, table: Table, columns: Mapping[str, str | None], labels: LabelColumns, split: str | None):
        """`split`: value of the column split; None or without this column, all rows are kept."""
        self.path, self.columns, self.labels, self.all_columns = table.path, columns, labels, table.columns
        self.split_codes = Codes()
        group_codes, names = Codes(), NameBuilder()
        kept, weights = ArrayBuilder(np.int64), ArrayBuilder(np.float64)
        of_split, groups = ArrayBuilder(np.int32), ArrayBuilder(np.int32)
        needed = [name for name in columns.values() if name is not None]
        count = 0
        for batch in table.batches(dict.fromkeys((*needed, *labels.needed), "string")):
            size = len(next(iter(batch.values())))
            of_this = np.ones(size, bool)
            if columns["split"] is not None:
                splits = self.split_codes.add(batch[columns["split"]])
                of_split.add(splits)
                of_this = splits == self.split_codes.names.get(str(split), -2)
            mask = of_this & labels.add(batch, of_this)  # without rows that have a fault
            if columns["weight"] is not None:
                values = _weights(batch[columns["weight"]], table.path, count, of_this)
                mask &= np.isfinite(values)
            paths = batch[str(columns["path"])].cast("large_string")
            mask &= _have_path(paths, table.path, count, of_this)
            names.add(paths if mask.all() else paths.filter(table.arrow.array(mask)))
            if columns["group"] is not None:
                groups.add(group_codes.add(batch[columns["group"]])[mask])
            if columns["weight"] is not None:
                weights.add(values[mask])
            kept.add(count + np.flatnonzero(mask))
            count += size
        self.kept = kept.finish()  # (K,) rows of the file
        self.of_split = of_split.finish()  # (rows of the file,) numbers of `split_codes`
        self.groups = _own_groups(groups.finish()) if columns["group"] is not None else None  # (K,)
        self.weights = weights.finish() if columns["weight"] is not None else None  # (K,)
        self.names = names.finish()  # (K,)

    def members(self, chosen: np.ndarray) -> np.ndarray:
        """Returns the pairs (M, 2) int32 of a place in `chosen`, rows that were kept, and the number of a value of the label."""
        place = np.full(self.labels.rows, -1, np.int32)
        place[self.kept[chosen]] = np.arange(len(chosen))
        members = self.labels.members
        places = place[members[:, 0]]
        return np.stack([places, members[:, 1]], axis=1)[places >= 0]

    def report_unknown_splits(self, known: Sequence[str]) -> None:
        """Reports the rows of splits that are not among `known`, for the doctor."""
        column, names = self.columns["split"], list(self.split_codes.names)
        for number in np.unique(self.of_split).tolist():
            name = names[number] if number >= 0 else ""
            if name not in known:
                rows = np.flatnonzero(self.of_split == number) + 1
                message = f"'{self.path}' has the value '{name}' in its column '{column}'; the splits are {', '.join(known)}."
                faults.report("unknown_split", message, [f"{self.path}, row {row}" for row in rows])


def _own_groups(groups: np.ndarray) -> np.ndarray:
    """Returns the groups (K,) int; rows without a group, -1, are groups of their own."""
    alone = np.flatnonzero(groups < 0)
    groups[alone] = groups.max(initial=-1) + 1 + np.arange(len(alone))
    return groups


def _weights(column: Any, path: Path, start: int, used: np.ndarray) -> np.ndarray:
    """Returns weights (N,) float64, NaN for those that are not numbers of at least 0. `start`: rows before them.

    Raises InputError if one of the rows `used` (N,) bool has such a weight.
    """
    try:
        values = column.cast("float64").fill_null(float("nan")).to_numpy(zero_copy_only=False)
    except ValueError:  # pyarrow's ArrowInvalid: some of them are text
        values = np.array([_number(value) for value in column.to_pylist()])
    values = np.where(np.isfinite(values) & (values >= 0), values, np.nan)
    for row in np.flatnonzero(used & np.isnan(values)).tolist():
        message = f"Row {start + row + 1} of '{path}' has the weight '{column[row].as_py() or ''}'; weights are 0 or more."
        faults.report("weight", message, [f"{path}, row {start + row + 1}"])
    return values


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return float("nan")


def _have_path(column: Any, path: Path, start: int, used: np.ndarray) -> np.ndarray:
    """Returns which rows have a path, (N,) bool. `start`: rows before them.

    Raises InputError if one of the rows `used` (N,) bool has none.
    """
    from pyarrow import compute

    empty: np.ndarray = compute.equal(compute.binary_length(column), 0).fill_null(True).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(used & empty).tolist():
        message = f"Row {start + row + 1} of '{path}' has no path. Add it, or remove the row."
        faults.report("without_image", message, [f"{path}, row {start + row + 1}"])
    return ~empty


def _present(table: Table, names: Mapping[str, str | None]) -> dict[str, str | None]:
    """Returns the names of the columns that the table has, None for the others.

    Raises InputError if the path is missing, or a column whose name is not the default.
    """
    columns: dict[str, str | None] = {}
    for key, name in names.items():
        required = name is not None and (key == "path" or name != COLUMNS[key])
        if required and name is not None:
            table.need(name, f"dataset.columns.{key}")
        columns[key] = name if name in table.columns else None
    if columns["path"] is None:
        raise InputError(
            f"dataset.columns.path is null; it is the name of the column with the paths: {format_names(table.columns)}."
        )
    return columns
