"""Checks of folders: classes that have no images in a split, empty folders, files that are not read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spine.data.checks.kinds import Finding, counted
from spine.data.faults import Fault
from spine.data.image_files import UNREADABLE_SUFFIXES, format_names, has_images, is_hidden, subfolders


def class_folders(files: Sequence[str], classes: Sequence[str], labels: np.ndarray) -> list[Path]:
    """Returns the folders of a split that hold class folders: <folder>/<class>/<image>. `labels` (N,): classes of the files."""
    found: dict[str, None] = {}
    for file, label in zip(files, labels.tolist(), strict=True):
        parent, name = os.path.split(os.path.dirname(file))
        if name == classes[label]:
            found[parent] = None
    return [Path(folder) for folder in found]


def contents(folders: Sequence[Path], split: str) -> list[Finding]:
    """Returns findings about folders of class folders: empty ones, images that are one folder too deep, formats that are not read."""
    empty, nested, unread = [], [], []
    for folder in folders:
        for name in subfolders(folder):
            inner = [each for each in subfolders(folder / name) if has_images(folder / name / each)]
            nested += [str(folder / name / each) for each in inner]
            names = [each for each in os.listdir(folder / name) if not is_hidden(each)]
            others = [str(folder / name / each) for each in names if os.path.splitext(each)[1].lower() in UNREADABLE_SUFFIXES]
            unread += others
            if not has_images(folder / name) and not inner and not others:
                empty.append(str(folder / name))
    return [
        Finding(kind, split, len(found), f"{counted(len(found), what)}: {format_names(found, 4)}.", found)
        for kind, found, what in (
            ("empty_class", empty, "empty class folder"),
            ("nested_images", nested, "folder"),
            ("unread_files", unread, "file"),
        )
        if found
    ]


def missing_classes(counts: dict[str, dict[str, int]]) -> list[Finding]:
    """Returns findings about classes with images in one split and none in another. `counts`: of images, by split and class."""
    found = []
    for split, of_split in counts.items():
        elsewhere = {name for other in counts.values() for name, count in other.items() if count}
        if missing := [name for name, count in of_split.items() if not count and name in elsewhere]:
            seen = f"{len(missing)} classes have no image in split '{split}': {format_names(missing)}."
            found.append(Finding("class_folders", split, len(missing), seen, missing))
    return found


def summarize(kind: str, split: str, faults: Sequence[Fault]) -> Finding:
    """Returns the finding of class folders of a split that no class is known for."""
    names = [os.path.basename(file) for fault in faults for file in fault.files]
    return Finding(kind, split, len(names), f"{faults[0].message}", [file for fault in faults for file in fault.files])
