"""ImageNet-1k (ILSVRC 2012) as it is downloaded: train/<wnid>/*.JPEG, and validation images in one folder or in class folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from spine.data import faults
from spine.data.folder_index import FolderIndex, index_folder
from spine.data.formats.image_folder import class_folders, rows_of_classes
from spine.data.image_files import (
    NUM_CHECKED,
    check_images,
    evenly_spaced,
    format_names,
    log_warning,
    need_root,
    read_text_lines,
)
from spine.data.image_per_file import ClassifiedImages
from spine.data.splits import Splits, configured_name, split_folder
from spine.errors import InputError
from spine.interfaces import Labels

PARENTS = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")  # folders of train and val in the root; the second is Kaggle's
LISTS = (  # of the classes of the validation images, the first that exists
    "val.txt",
    "LOC_val_solution.csv",
    "ILSVRC2012_validation_ground_truth.txt",
    "*/data/ILSVRC2012_validation_ground_truth.txt",
    "*/ILSVRC2012_validation_ground_truth.txt",
)
SYNSETS = ("meta.mat", "map_clsloc.txt")  # beside the ground truth: the wnid of each of its numbers
WNID = re.compile(r"n\d{8}")


class ImageNet(ClassifiedImages):
    """ImageNet-1k, or a part of its classes. The classes are the wnids of the training folders, sorted, as everywhere.

    Without training folders, they are those of the validation images. Validation images of other classes are left out.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"image", "label"})

    def __init__(self, split: str, *, root: str | None, labels: str | None = None, splits: Splits | None = None):
        """`labels`: file with the classes of the validation images, relative to root. None: the first that is found of val.txt
        (lines `name wnid` or `name number`, which counts the sorted wnids from 0), LOC_val_solution.csv of Kaggle, and
        ILSVRC2012_validation_ground_truth.txt beside meta.mat or map_clsloc.txt, in root or in its development kit.
        `splits`: folder name of each split.

        Raises InputError if a folder or the classes of the validation images are not found.
        """
        base = need_root(root, "imagenet")
        inner = next((name for name in PARENTS if (base / name / _name("train", splits)).is_dir()), "")
        parent = base / inner
        self.split, self.folder = split, split_folder(parent, "{split}", split, splits)
        index = index_folder(self.folder)
        training = parent / _name("train", splits)
        known = None
        if training.is_dir():
            known = _wnids(index if training == self.folder else index_folder(training), training)
        found = class_folders(index)
        self.lists: list[Path] = []  # files that the classes are read from
        if found:
            classes = _wnids(index, self.folder)
            rows = rows_of_classes(index, classes)
            positions = np.concatenate([np.zeros(0, np.int64), *rows])
            wnids = np.repeat(np.arange(len(classes)), np.array([len(of_class) for of_class in rows], int))
        elif len(index.names):
            positions, classes, wnids = self._listed(base, parent, labels, index, known)
        else:
            raise InputError(f"'{self.folder}' has no images.")
        known = classes if known is None else known
        number = {wnid: i for i, wnid in enumerate(known)}
        targets = np.array([number.get(wnid, -1) for wnid in classes], np.int32)[wnids]
        kept = targets >= 0
        if not kept.any():
            raise InputError(f"No image in '{self.folder}' has a class of '{training}': {format_names(known)}.")
        if not kept.all():
            log_warning(
                f"{(~kept).sum()} of {len(kept)} images in '{self.folder}' are left out: their classes are not among the {len(known)} "
                f"of '{training}'."
            )
        self.labels = Labels(classes=tuple(known))
        self.targets = targets[kept]
        self.names, self.in_class_folders = index.names.select(positions[kept]), bool(found)

    def _listed(
        self, base: Path, parent: Path, labels: str | None, index: FolderIndex, known: list[str] | None
    ) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Returns the positions in `index` of the images of one folder, wnids, and for each image the number of its own among them."""
        path = base / labels if labels is not None else _find((base, self.folder, parent), LISTS)
        if path is None or not path.is_file():
            sought = f"no file '{path}'" if path is not None else f"none of {', '.join(LISTS[:3])} in '{base}'"
            raise InputError(
                f"The images in '{self.folder}' are in one folder, and there is {sought} with their classes. Set dataset.labels=<file>, "
                f"or move the images into folders named after their wnids."
            )
        self.lists.append(path)
        names = [index.names[i] for i in range(len(index.names))]
        wnid_of = self._ground_truth(path, names) if "ground_truth" in path.name else _named_classes(path, known)
        stems = [Path(name).stem for name in names]
        if missing := [name for name, stem in zip(names, stems, strict=True) if stem not in wnid_of]:
            faults.report(
                "missing_label",
                f"'{path}' does not name {len(missing)} images of '{self.folder}', such as '{missing[0]}'.",
                [self.folder / name for name in missing],
            )
        expected = {stem for stem, wnid in wnid_of.items() if known is None or wnid in known}
        if faults.is_collecting() and (absent := sorted(expected - set(stems))):
            message = f"'{path}' names {len(absent)} images that are not in '{self.folder}', such as '{absent[0]}'."
            faults.report("missing_file", message, [self.folder / stem for stem in absent])
        positions = np.array([i for i, stem in enumerate(stems) if wnid_of.get(stem)], int)
        wnids, numbers = np.unique([wnid_of[stems[i]] for i in positions], return_inverse=True)
        return positions, wnids.tolist(), numbers

    def _ground_truth(self, path: Path, names: list[str]) -> dict[str, str]:
        """Returns the wnid of each image by its name without suffix, from the numbers of the development kit, one per line.

        A number of no class is a fault, with which the doctor goes on: its wnid is empty.
        """
        source = _find((path.parent, path.parent / "data"), SYNSETS)
        if source is None:
            raise InputError(
                f"'{path}' has the numbers of the development kit, which are not in the order of the wnids: put {' or '.join(SYNSETS)} "
                f"of the kit beside it."
            )
        self.lists.append(source)
        wnids = _synsets(source)
        lines = read_text_lines(path)
        if len(lines) != len(names):
            message = f"'{path}' has {len(lines)} lines, and '{self.folder}' {len(names)} images; it has one line for each image."
            faults.report("label_count", message, [path])
            return {Path(name).stem: "" for name in names}  # it is not known which line belongs to which image
        found = {}
        for name, line in zip(names, lines, strict=True):
            found[Path(name).stem] = wnid = wnids.get(int(line), "") if line.strip().isdecimal() else ""
            if not wnid:
                message = f"'{path}' has the line '{line}', which is no number of a class in '{source}'."
                faults.report("unknown_label", message, [self.folder / name])
        return found

    def check(self, needs: frozenset[str]) -> None:
        """Reads a few images. Logs a warning about classes without images."""
        self.warn_of_empty_classes()
        check_images([(self.path(i), None) for i in evenly_spaced(len(self), NUM_CHECKED)])

    def path(self, index: int) -> Path:
        """Returns the file of an image."""
        folder = self.folder / self.labels.classes[self.targets[index]] if self.in_class_folders else self.folder
        return folder / self.names[index]

    def shared_files(self) -> list[str]:
        """Returns the files that the classes of the validation images are read from."""
        return [str(path) for path in self.lists]


def _name(split: str, splits: Splits | None) -> str:
    return configured_name(split, splits) or split


def _wnids(index: FolderIndex, folder: Path) -> list[str]:
    """Returns the wnids of the class folders in `folder`. Raises InputError for a folder with another name."""
    found = class_folders(index)
    if other := [name for name in found if not WNID.fullmatch(name)]:
        faults.report(
            "class_folders",
            f"The class folder '{other[0]}' is not named after a wnid, such as n01440764. Folders of other names are read by "
            f"dataset=image_folder.",
            [folder / name for name in other],
        )
    return [name for name in found if WNID.fullmatch(name)]


def _find(folders: tuple[Path, ...], names: tuple[str, ...]) -> Path | None:
    """Returns the first of the files that is in one of the folders."""
    return next((path for name in names for folder in folders for path in sorted(folder.glob(name)) if path.is_file()), None)


def _named_classes(path: Path, known: list[str] | None) -> dict[str, str]:
    """Returns the wnid of each image by its name without suffix. `known`: wnids that numbers count.

    A line without a class is a fault, with which the doctor goes on: its wnid is empty.
    """
    found: dict[str, str] = {}
    for line in read_text_lines(path):
        name, *values = re.split(r"[\s,]+", line.strip())
        value = values[0] if values else ""
        if name == "ImageId":
            continue  # header of Kaggle's file
        if not WNID.fullmatch(value):
            value = _numbered(path, line, value, known)
        found[Path(name).stem] = value
    return found


def _numbered(path: Path, line: str, value: str, known: list[str] | None) -> str:
    """Returns the wnid that a number of val.txt stands for. Raises InputError if there is none; for the doctor, it is then empty."""
    if not value.isdecimal():
        message = f"'{path}' has the line '{line}'; a line is the name of an image and its wnid or number."
    elif known is None or int(value) >= len(known):
        message = (
            f"'{path}' has the number {value} of a class; numbers count the sorted wnids of the training folders from 0, and there are "
            f"{len(known or [])}."
        )
    else:
        return known[int(value)]
    faults.report("unknown_label", message, [f"{path}, line '{line}'"])
    return ""


def _synsets(path: Path) -> Mapping[int, str]:
    """Returns the wnids of the numbers of the development kit, from its meta.mat or map_clsloc.txt."""
    try:
        if path.suffix == ".txt":
            return {int(number): wnid for wnid, number, *_ in map(str.split, read_text_lines(path))}
        from scipy.io import loadmat

        synsets = loadmat(path, squeeze_me=True)["synsets"]
        return {int(number): str(wnid) for number, wnid in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise InputError(f"'{path}' is not the list of synsets of the development kit ({error}).") from error
