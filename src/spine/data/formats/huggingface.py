"""Data sets of Hugging Face on disk: folders of `save_to_disk`, and Parquet or Arrow files with images in them."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spine.data import faults
from spine.data.arrow_rows import ArrowRows
from spine.data.image_files import (
    class_names,
    decode,
    evenly_spaced,
    format_names,
    log_warning,
    need_root,
    read_bytes,
)
from spine.data.label_columns import LabelColumns, class_numbers
from spine.data.mask_classes import LabelMap, MaskClasses
from spine.data.masks import read_mask
from spine.data.splits import COMMON_NAMES, Splits, configured_name, divide
from spine.encoded_image import EncodedImage
from spine.errors import InputError, UnreadableFileError
from spine.interfaces import DataSet, Labels, RawSample

COLUMNS = ("image", "label", "mask")
MASK_NAMES = (
    "mask",
    "annotation",
    "annotations",
    "label",
    "labels",
    "segmentation",
    "segmentation_mask",
    "semantic_mask",
)
CHECKED = 8  # rows that are decoded before training
MANY_ROWS = 256  # of a row group; more are slow to read for one image


class HuggingFace(DataSet):
    """Images with classes, or with masks, in the columns of Arrow or Parquet files.

    Arrow files are mapped into memory. A row of a Parquet file is read when it is needed, with its row group; nothing
    else of the file is in memory, and every sample can be read at any time, so the order of an epoch is that of all
    data sets.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"image", "label", "mask"})

    def __init__(
        self,
        split: str,
        *,
        root: str | None,
        columns: Mapping[str, str | None] | None = None,
        classes: list[str] | str | None = None,
        mask_classes: list[str] | str | None = None,
        ignore_index: int | Sequence[int] | None = None,
        reduce_zero_label: bool = False,
        label_map: LabelMap | None = None,
        in_memory: bool = False,
        splits: Splits | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
    ):
        """`root`: a folder of `save_to_disk`, or with .parquet or .arrow files whose paths contain the name of the
        split.

        `columns`: names of the columns image, label and mask. None: image is the first column of images, mask the
        second one if it is named like a mask, label the first one of classes, or "label". `classes`: names in the order
        of the outputs, or a file relative to root; None: those that are stored with the column, otherwise its values in
        the training split, sorted. `mask_classes`: names of the classes of masks, or a file; `ignore_index`,
        `reduce_zero_label`, `label_map`: see `MaskFolder`.
        `in_memory`: reads the images of a split at once, for Parquet files with large row groups. `splits`: names of
        the splits.

        Without files for each split, `val_fraction` of the rows of each class, drawn with `split_seed`, are the
        validation split. Raises InputError if there are no files, or no column with images.
        """
        base = need_root(root, "huggingface")
        paths, divided = _split_files(base, split, splits)
        self.split, self.table = split, ArrowRows(paths)
        features = self.table.features()
        self.columns = _find_columns(self.table, features, columns or {})
        training = self.table
        if not divided and split != "train" and self.columns["label"]:
            training = _training_table(base, splits)
        targets, names, several = self._read_labels(features, classes, base, training)
        self.rows = np.arange(len(self.table))
        if self.faulty:
            self.rows = np.delete(self.rows, self.faulty)
        if divided:
            self.rows = self._divide(targets, val_fraction, split_seed)
        self.targets = None if targets is None else targets[self.rows]
        self.masks: MaskClasses | None = None
        if self.columns["mask"]:
            if mask_classes is None:
                raise InputError(
                    f"Column '{self.columns['mask']}' of '{paths[0]}' has masks: name their classes with "
                    f"dataset.mask_classes=[...], or a file."
                )
            self.masks = MaskClasses(
                class_names(base, mask_classes),
                ignore_index=ignore_index,
                reduce_zero_label=reduce_zero_label,
                label_map=label_map,
            )
        of_masks = () if self.masks is None else self.masks.names
        self.labels = Labels(classes=names, several_classes=several, mask_classes=of_masks)
        self.provides = frozenset(key for key, name in self.columns.items() if name)  # type: ignore[misc]
        # columns that a sample is read from
        self.used = [name for key in ("image", "mask") if (name := self.columns[key])]
        if not len(self.rows):
            raise InputError(f"'{paths[0]}' has no rows of split '{split}'.")
        if in_memory:
            self.table.keep_in_memory(self.used)

    def _read_labels(
        self, features: Mapping[str, Any], classes: list[str] | str | None, base: Path, training: ArrowRows
    ) -> tuple[np.ndarray | None, tuple[str, ...], bool]:
        """Returns the classes of the rows, (N,) int32 or (N, classes) uint8, the names of the classes, and whether a
        row has several.

        `faulty` are the rows without a class, which the doctor leaves out.
        """
        column = self.columns["label"]
        self.faulty: list[int] = []
        if not column:
            return None, (), False
        found, readable = _labels(self.table, column)
        of_training = found.names if training is self.table else _labels(training, column, used=False)[0].names
        members = found.members

        def rows_of(number: int) -> list[str]:
            return [self.table.place(row) for row in members[members[:, 1] == number, 0].tolist()]

        if classes is not None:
            classes = class_names(base, classes)
        stored = _stored_names(features.get(column, {}))
        if stored:
            known = {str(number): number for number in range(len(stored))}
            for number, name in enumerate(found.names):
                if name not in known:
                    faults.report(
                        "unknown_label",
                        f"'{self.table.paths[0]}' has the number {name} in column '{column}', which has the "
                        f"{len(stored)} classes 0 to {len(stored) - 1}: {format_names(stored)}.",
                        rows_of(number),
                    )
            names, numbers = tuple(stored), np.array([known.get(name, -1) for name in found.names], np.int32)
            if classes is not None and sorted(classes) != sorted(stored):
                raise InputError(
                    f"dataset.classes and the names stored in '{self.table.paths[0]}' differ: {format_names(stored)}."
                )
            if classes is not None:  # in another order
                order = np.array([*(classes.index(name) for name in stored), -1], np.int32)
                names, numbers = tuple(classes), order[numbers]
        else:
            names, numbers = class_numbers(found.names, classes, of_training, self.table.paths[0], rows_of)
        rows, targets_of = members[:, 0], numbers[members[:, 1]]
        self.faulty = sorted({*np.flatnonzero(~readable).tolist(), *rows[targets_of < 0].tolist()})
        if not found.several:
            targets = np.zeros(len(self.table), np.int32)
            targets[rows] = targets_of
            return targets, names, False
        targets = np.zeros((len(self.table), len(names)), np.uint8)
        targets[rows, targets_of] = 1
        return targets, names, True

    def _divide(self, targets: np.ndarray | None, fraction: float, seed: int) -> np.ndarray:
        """Returns the rows of this split."""
        strata = np.zeros(len(self.rows), int) if targets is None or targets.ndim == 2 else targets[self.rows]
        parts = []
        for label in np.unique(strata):
            rows = self.rows[strata == label]
            parts.append(rows[divide(len(rows), self.split, fraction, (seed, zlib.crc32(str(label).encode())))])
        chosen = np.sort(np.concatenate(parts)) if parts else np.zeros(0, int)
        if self.split == "train":
            log_warning(
                f"'{self.table.paths[0].parent}' has no files for each split: {len(chosen)} of its {len(strata)} rows "
                f"are for training, the others for validation (dataset.val_fraction={fraction}, "
                f"dataset.split_seed={seed})."
            )
        return chosen

    def check(self, needs: frozenset[str]) -> None:
        """Decodes a few rows. Logs a warning if each image is read with many others."""
        self.used = [name for key in ("image", "mask") if (name := self.columns[key]) and key in needs]
        for index in evenly_spaced(len(self), CHECKED):
            self.load(index)
        if self.table.parquet and self.table.rows_per_read > MANY_ROWS:
            log_warning(
                f"The row groups of '{self.table.paths[0]}' have {self.table.rows_per_read:.0f} rows, and one is read "
                f"for each image: set dataset.in_memory=true, or write the files with row_group_size=100, or with "
                f"save_to_disk."
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def class_indices(self) -> np.ndarray | None:
        """Returns the class of each image, or None if there are none or several."""
        return None if self.targets is None or self.targets.ndim == 2 else self.targets

    def shared_files(self) -> list[str]:
        """Returns the files of the split."""
        return [str(path) for path in self.table.paths]

    def load(self, index: int) -> RawSample:
        """Returns image (H, W, 3) uint8, and label or mask (H, W) uint8."""
        row = self.table.row(int(self.rows[index]), self.used)
        sample: RawSample = {"image": decode(self._encoded(index, row, "image")), **self._label(index)}
        if self.masks is not None and self.columns["mask"] in self.used:
            sample["mask"] = self._mask(index, row)
            if sample["mask"].shape != sample["image"].shape[:2]:
                faults.report(
                    "mask_size",
                    f"The image in '{self._place(index)}' is {sample['image'].shape[:2]}, its mask "
                    f"{sample['mask'].shape}; they must have the same size.",
                    [self._place(index)],
                )
        return sample

    def load_annotations(self, index: int) -> RawSample:
        """Returns label or mask (H, W) uint8."""
        sample = self._label(index)
        mask = self.columns["mask"]
        if mask and mask in self.used:
            sample["mask"] = self._mask(index, self.table.row(int(self.rows[index]), [mask]))
        return sample

    def encoded_image(self, index: int) -> EncodedImage | None:
        """Returns the bytes of the image as they are stored.

        None for samples with masks, which are read from the row together.
        """
        if self.columns["mask"] in self.used:
            return None
        return self._encoded(index, self.table.row(int(self.rows[index]), self.used), "image")

    def _label(self, index: int) -> RawSample:
        if self.targets is None:
            return {}
        return {"label": self.targets[index] if self.targets.ndim == 2 else int(self.targets[index])}

    def _mask(self, index: int, row: Mapping[str, Any]) -> np.ndarray:
        assert self.masks is not None
        encoded = self._encoded(index, row, "mask")
        return self.masks.of_stored(encoded.name, read_mask(encoded.name, encoded.data))

    def _place(self, index: int) -> str:
        return self.table.place(int(self.rows[index]))

    def _encoded(self, index: int, row: Mapping[str, Any], key: str) -> EncodedImage:
        """Returns the bytes of an image or a mask. Raises UnreadableFileError if there are none."""
        value = row[str(self.columns[key])]
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if content is None and path:
            what = "a mask" if key == "mask" else "an image"
            return EncodedImage(read_bytes(path, f"{what} of {self._place(index)}"), path)
        if content is None:
            place, kind = self._place(index), "without_image" if key == "image" else "image_without_mask"
            raise UnreadableFileError(f"'{place}' has no {key}.", place, kind)
        return EncodedImage(np.frombuffer(content, np.uint8), self._place(index))


# ---- files -----------------------------------------------------------------------------------------------------------


def _split_files(base: Path, split: str, splits: Splits | None) -> tuple[list[Path], bool]:
    """Returns the files of a split, sorted, and whether they hold all splits. Raises InputError if there are none."""
    name = configured_name(split, splits) or split
    if (base / "dataset_dict.json").is_file():
        names = _read_json(base / "dataset_dict.json").get("splits", [])
        if name not in names:
            listed = f"Its splits: {format_names(names)}.{_suggestion(split, names)}"
            raise InputError(f"'{base}' has no split '{name}'. {listed}")
        return _saved_files(base / name), False
    if (base / "state.json").is_file():
        return _saved_files(base), True
    files = sorted(path for suffix in ("parquet", "arrow") for path in base.rglob(f"*.{suffix}"))
    if not files:
        raise InputError(f"'{base}' has no .parquet or .arrow file, and is no folder of save_to_disk.")
    found = [path for path in files if _names_split(path.relative_to(base), name)]
    common = {other for names in COMMON_NAMES.values() for other in names}
    others = [other for other in sorted(common) if any(_names_split(path.relative_to(base), other) for path in files)]
    if not found and others:
        raise InputError(
            f"No file in '{base}' has '{name}' in its path, such as data/{name}-00000-of-00001.parquet. Splits of its "
            f"{len(files)} files: {format_names(others)}.{_suggestion(split, others)}"
        )
    chosen = found or files
    if len({path.suffix for path in chosen}) > 1:
        raise InputError(f"'{base}' has .parquet and .arrow files of split '{split}'. Keep one kind.")
    return chosen, not found


def _suggestion(split: str, names: Sequence[str]) -> str:
    """Returns the key to set for a split that has another usual name."""
    other = next((name for name in COMMON_NAMES.get(split, ()) if name in names), None)
    return f" To use '{other}', set dataset.splits.{split}={other}." if other else ""


def _names_split(path: Path, name: str) -> bool:
    """Whether the name of a split stands alone in a path, as in data/train-00000-of-00002.parquet."""
    return re.search(rf"(?:^|[/._-]){re.escape(name)}(?:[/._-]|$)", path.as_posix()) is not None


def _saved_files(folder: Path) -> list[Path]:
    """Returns the files that `save_to_disk` wrote into a folder."""
    names = [entry.get("filename", "") for entry in _read_json(folder / "state.json").get("_data_files", [])]
    if not names or any("/" in name or not (folder / name).is_file() for name in names):
        raise InputError(f"'{folder}' is not complete: state.json lists {format_names(names) or 'no files'}.")
    return [folder / name for name in names]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"'{path}' is no file of save_to_disk.")
    return content


def _training_table(base: Path, splits: Splits | None) -> ArrowRows:
    return ArrowRows(_split_files(base, "train", splits)[0])


# ---- columns ---------------------------------------------------------------------------------------------------------


def _find_columns(
    table: ArrowRows,
    features: Mapping[str, Any],
    given: Mapping[str, str | None],
) -> dict[str, str | None]:
    """Returns the columns of image, label and mask; None for label and mask if there are none.

    Raises InputError without images.
    """
    listed = format_names(table.columns)
    if unknown := sorted(set(given) - set(COLUMNS)):
        raise InputError(f"dataset.columns has the key '{unknown[0]}'; its keys are {', '.join(COLUMNS)}.")
    if missing := [(key, name) for key, name in given.items() if name is not None and name not in table.columns]:
        key, name = missing[0]
        raise InputError(f"'{table.paths[0]}' has no column '{name}' (dataset.columns.{key}). Its columns: {listed}.")
    images = [name for name in table.columns if _holds_images(table, features, name)]
    image = given.get("image") or next((name for name in images if name != given.get("mask")), None)
    if image is None:
        message = f"'{table.paths[0]}' has no column of images. Its columns: {listed}; set dataset.columns.image."
        raise InputError(message)
    mask = given.get("mask") or next((name for name in images if name != image and name.lower() in MASK_NAMES), None)
    labels = [name for name in table.columns if _stored_names(features.get(name, {})) and name != mask]
    named = [name for name in ("label", "labels") if name in table.columns and name not in (image, mask)]
    return {"image": image, "label": given.get("label") or next(iter([*labels, *named]), None), "mask": mask}


def _holds_images(table: ArrowRows, features: Mapping[str, Any], name: str) -> bool:
    """Whether a column has images: by its feature, or as a structure with the field bytes."""
    feature = features.get(name)
    if feature is not None:
        return isinstance(feature, dict) and feature.get("_type") == "Image"
    kind = table.schema.field(name).type
    return str(kind).startswith("struct") and kind.get_field_index("bytes") >= 0


def _stored_names(feature: Any) -> list[str]:
    """Returns the names of the classes of a feature, or of the items of its lists; empty if it has none."""
    if isinstance(feature, dict) and feature.get("_type") in ("Sequence", "List", "LargeList"):
        feature = feature.get("feature")
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return []
    return [str(name) for name in feature.get("names", [])]


def _labels(table: ArrowRows, column: str, used: bool = True) -> tuple[LabelColumns, np.ndarray]:
    """Returns the values of the column of classes, and which rows have one, (N,) bool.

    `used`: whether the rows are samples. Raises InputError if one of these has no value.
    """
    labels, readable = LabelColumns(table.paths[0], column, None, ()), [np.zeros(0, bool)]
    for values in table.batches(column):
        readable.append(labels.add({column: values}, np.full(len(values), used)))
    return labels, np.concatenate(readable)
