"""Image classification from a list: a CSV or Parquet file with a row for each image."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

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
        of_training = self._training_values(rows, columns_of, splits, separator, delimiter)
        divided = "{split}" not in file and columns_of["split"] is None
        chosen = np.arange(len(rows.kept)) if not divided else self._divide(rows, columns_of, val_fraction, split_seed)
        self._fill(rows, chosen, labels, classes if classes is not None else class_columns or None, of_training)

    def _training_values(
        self, rows: _Rows, columns: Mapping[str, str | None], splits: Splits | None, separator: str | None, delimiter: str | None
    ) -> list[str]:
        """Returns the different values of the label in the training rows."""
        if len(self.paths) > 1:
            if columns["label"] is None:
                return []
            table = Table(self.paths[1], delimiter)
            labels = LabelColumns(table.path, table.need(columns["label"], "dataset.columns.label"), separator, ())
            _Rows(table, {**dict.fromkeys(COLUMNS), "label": columns["label"]}, labels, None)
            return labels.names
        training = rows.split_codes.names.get(configured_name("train", splits) or "train")
        if columns["split"] is None or training is None:  # without training rows, all rows define the classes
            return rows.labels.names
        members = rows.labels.members
        used = np.unique(members[rows.of_split[members[:, 0]] == training, 1])
        return [rows.labels.names[number] for number in used]

    def _divide(self, rows: _Rows, columns: Mapping[str, str | None], fraction: float, seed: int) -> np.ndarray:
        """Returns the rows of this split."""
        count, members = len(rows.kept), rows.labels.members
        if not rows.labels.needed:
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
        """Keeps the chosen ones of the rows that were kept."""
        if not len(chosen):
            found = (
                f" Values of its column '{rows.columns['split']}': {format_names(rows.split_codes.names)}."
                if rows.columns["split"]
                else ""
            )
            raise InputError(f"'{self.paths[0]}' has no row of the split '{self.split}'.{found}")
        everything = len(chosen) == len(rows.kept)
        self.names: PackedNames = rows.names if everything else rows.names.select(chosen)
        rows_of_file = rows.kept[chosen]
        self.groups_of, self.weights = rows.groups, rows.weights
        if self.groups_of is not None:
            self.groups_of = self.groups_of[chosen]
        if self.weights is not None:
            self.weights = self.weights[chosen]
        self.targets: np.ndarray | None = None  # (N,) int32
        self.bits: np.ndarray | None = None  # (N, ceil(classes / 8)) uint8, packed
        self.labels = Labels()
        if not labels.needed:
            self.provides = frozenset({"image"})  # type: ignore[misc]
            log_warning(
                f"'{self.paths[0]}' has no column for the classes, so its images have no labels. To name it, set "
                f"dataset.columns.label=<column> or dataset.class_columns=[...]. Its columns: {format_names(rows.all_columns)}."
            )
            return
        members = labels.members
        position = np.full(labels.rows, -1, np.int32)
        position[rows_of_file] = np.arange(len(chosen))
        members = members[position[members[:, 0]] >= 0]
        used = np.unique(members[:, 1])
        names, numbers = class_numbers([labels.names[i] for i in used], classes, of_training, self.paths[0])
        self.labels = Labels(classes=names, several_classes=labels.several)
        table = np.zeros(len(labels.names), np.int32)
        table[used] = numbers
        if labels.several:
            self.bits = np.zeros((len(chosen), -(-len(names) // 8)), np.uint8)
            members = np.stack([position[members[:, 0]], table[members[:, 1]]], axis=1)
            np.bitwise_or.at(self.bits, (members[:, 0], members[:, 1] // 8), (128 >> (members[:, 1] % 8)).astype(np.uint8))
        else:
            self.targets = table[members[:, 1]]

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
        return self.folder / (self.names[index] + self.suffix)

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
        self.columns, self.labels, self.all_columns = columns, labels, table.columns
        self.split_codes = Codes()
        group_codes, names = Codes(), NameBuilder()
        kept, weights = ArrayBuilder(np.int64), ArrayBuilder(np.float64)
        of_split, groups = ArrayBuilder(np.int32), ArrayBuilder(np.int32)
        needed = {name: "float64" if key == "weight" else "string" for key, name in columns.items() if name is not None}
        count = 0
        for batch in table.batches({**needed, **dict.fromkeys(labels.needed, "string")}):
            size = len(next(iter(batch.values())))
            labels.add(batch, size)
            mask = np.ones(size, bool)
            if columns["split"] is not None:
                splits = self.split_codes.add(batch[columns["split"]])
                of_split.add(splits)
                mask = splits == self.split_codes.names.get(str(split), -2)
            if columns["group"] is not None:
                groups.add(group_codes.add(batch[columns["group"]])[mask])
            if columns["weight"] is not None:
                weights.add(_weights(batch[columns["weight"]], table.path, count)[mask])
            if columns["path"] is not None:
                names.add(_paths(batch[columns["path"]], table, count, mask))
            kept.add(count + np.flatnonzero(mask))
            count += size
        self.kept = kept.finish()  # (K,) rows of the file
        self.of_split = of_split.finish()  # (rows of the file,) numbers of `split_codes`
        self.groups = _own_groups(groups.finish()) if columns["group"] is not None else None  # (K,)
        self.weights = weights.finish() if columns["weight"] is not None else None  # (K,)
        self.names = names.finish()  # (K,)


def _own_groups(groups: np.ndarray) -> np.ndarray:
    """Returns the groups (K,) int; rows without a group, -1, are groups of their own."""
    alone = np.flatnonzero(groups < 0)
    groups[alone] = groups.max(initial=-1) + 1 + np.arange(len(alone))
    return groups


def _weights(column: Any, path: Path, start: int) -> np.ndarray:
    """Returns weights (N,) float64. Raises InputError unless all are numbers of at least 0. `start`: rows before them."""
    values: np.ndarray = column.cast("float64").fill_null(float("nan")).to_numpy(zero_copy_only=False)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        raise InputError(
            f"Row {start + int(np.argmax(bad)) + 1} of '{path}' has the weight {values[bad][0]}; weights are 0 or more."
        )
    return values


def _paths(column: Any, table: Table, start: int, mask: np.ndarray) -> Any:
    """Returns the paths of the rows in `mask` as large strings. Raises InputError if one is empty. `start`: rows before them."""
    from pyarrow import compute

    column = column.cast("large_string")
    empty = compute.equal(compute.binary_length(column), 0).fill_null(True).to_numpy(zero_copy_only=False)
    if empty.any():
        raise InputError(f"Row {start + int(np.argmax(empty)) + 1} of '{table.path}' has no path.")
    return column if mask.all() else column.filter(table.arrow.array(mask))


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
