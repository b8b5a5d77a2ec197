"""Examines the splits of a data set and reports everything that is wrong with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from spine.data.checks import duplicates, folders, keypoints, masks, statistics
from spine.data.checks.kinds import KINDS, Finding, counted
from spine.data.checks.scan import Examined, Group, examine, group_samples
from spine.data.faults import Fault, collected
from spine.data.image_files import MIN_PEAK_16_BIT, format_names
from spine.errors import InputError
from spine.interfaces import DataSet

SPLITS = ("train", "val", "test")
EXAMPLES = 6  # of a finding, with pictures
LISTED = 1000  # files of a finding in doctor.json
LISTS = frozenset({  # kinds of which a fault may list many files
    "image_without_mask", "mask_without_image", "missing_file", "jpeg_mask", "unknown_label", "missing_label", "unknown_split",
    "changed_shard",
})  # fmt: skip
Facts = dict[str, object]


@dataclass
class Split:
    """A split that is open."""

    name: str
    data: DataSet
    groups: list[Group]
    read: Examined | None = None

    @cached_property
    def class_indices(self) -> np.ndarray | None:
        """Returns the class of each sample (N,), or None. Some data sets load all samples for it."""
        return self.data.class_indices()

    def name_of(self, record: np.ndarray) -> str:
        """Returns the file of an image, or what it is called if it has none of its own."""
        index = int(record["index"])
        return (self.data.files(index) or [f"{self.name}, sample {index}"])[0]

    def counts(self) -> dict[str, int]:
        """Returns the number of images of each class, or of masks that show it. Empty if there are no classes."""
        labels, indices = self.data.labels, self.class_indices
        if indices is not None:
            return dict(zip(labels.classes, np.bincount(indices, minlength=len(labels.classes)).tolist(), strict=True))
        if self.read is not None and labels.classes and "label" in self.data.provides:
            return dict(zip(labels.classes, self.read.labels.tolist(), strict=True))
        if self.read is not None and labels.mask_classes and "mask" in self.data.provides:
            return dict(zip(labels.mask_classes, self.read.shown.tolist(), strict=True))
        return {}


@dataclass
class Report:
    """What the doctor found."""

    splits: dict[str, Facts] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)  # of opening the splits

    @property
    def errors(self) -> int:
        """Returns the number of findings that are errors."""
        return sum(finding.severity == "error" for finding in self.findings)


class Doctor:
    """Opens the splits, reads every file, and judges what was read: call `open`, `read` and `judge`."""

    def __init__(self, open_split: Callable[[str], DataSet]):
        self.open_split = open_split
        self.splits: list[Split] = []
        self.report = Report()
        self.opening: list[tuple[str, Fault]] = []  # split and fault

    def open(self) -> int:
        """Opens the splits and returns the number of their images."""
        for name in SPLITS:
            with collected() as faults, _messages() as messages:
                try:
                    data = self.open_split(name)
                    split = Split(name, data, group_samples(data))
                except InputError as error:
                    if name == "test":  # most data sets have none
                        self.report.messages.append(f"Split 'test' is not examined. {error}")
                        continue
                    faults.append(Fault("cannot_open", str(error)))
                    split = None
            self.report.messages += [each for each in messages if each not in self.report.messages]
            known = {(fault.kind, fault.files or fault.message) for _, fault in self.opening}  # a divided folder is opened twice
            self.opening += [(name, fault) for fault in faults if (fault.kind, fault.files or fault.message) not in known]
            if split is not None and (same := self._same_files(split)) is not None:
                self.report.messages.append(f"Split '{name}' has the files of split '{same}', and is not read again.")
            elif split is not None:
                self.splits.append(split)
        return sum(len(split.groups) for split in self.splits)

    def _same_files(self, split: Split) -> str | None:
        """Returns an open split with the same files, if `split` is for tests, which often are the validation split."""
        if split.name != "test":
            return None
        files = {file for group in split.groups for file in split.data.files(group[0])}
        for other in self.splits:
            if files and files == {file for group in other.groups for file in other.data.files(group[0])}:
                return other.name
        return None

    def read(self, num_workers: int, advance: Callable[[int], None]) -> None:
        """Reads all files. `advance` is called with the number of images that were read since the last call."""
        for split in self.splits:
            split.read = examine(split.data, split.groups, num_workers, advance)

    def judge(self) -> Report:
        """Returns the report. Findings are in the order of KINDS, errors first."""
        found: list[Finding] = []
        for name in SPLITS:
            split = next((each for each in self.splits if each.name == name), None)
            faults = [fault for of, fault in self.opening if of == name]
            if split is not None and split.read is not None:
                faults += split.read.faults
            found += by_kind(name, faults, split)
            if split is not None:
                found += self._of_split(split)
        counts = {split.name: split.counts() for split in self.splits if "label" in split.data.provides}
        found += folders.missing_classes(counts)
        if self.splits:
            found += keypoints.flip_pairs(self.splits[0].data.labels)
        found += find_duplicates(self.splits)
        found += self._refused(found)
        order = {kind: place for place, kind in enumerate(KINDS)}
        self.report.findings = sorted(found, key=lambda each: (each.severity == "note", order[each.kind]))  # in each, by split
        self.report.splits = {split.name: facts(split) for split in self.splits}
        return self.report

    def _of_split(self, split: Split) -> list[Finding]:
        read, labels, indices = split.read, split.data.labels, split.class_indices
        assert read is not None
        found = []
        if indices is not None:
            files = [(split.data.files(index) or [""])[0] for index in range(len(split.data))]
            found += folders.contents(folders.class_folders(files, labels.classes, indices), split.name)
        if "label" in split.data.provides and split.name == "train":
            found += statistics.imbalance(split.counts(), split.name)
        if "mask" in split.data.provides and split.name == "train":
            found += statistics.classes_without_pixels(labels.mask_classes, read.pixels, split.name)
        if len(read.records) and (odd := np.flatnonzero(statistics.odd_sizes(read.records["size"]))).size:
            indices_of_odd = read.records["index"][odd].tolist()
            some = [Fault("odd_size", "", tuple(split.data.files(i)), index=i) for i in indices_of_odd]
            height, width = read.records[odd[0]]["size"]
            seen = f"{counted(len(odd), 'image')}; the first, '{split.name_of(read.records[odd[0]])}', is {width}x{height}."
            found.append(_finding("odd_size", split.name, some, seen))
        return found

    def _refused(self, found: Sequence[Finding]) -> list[Finding]:
        """Returns what `check` refuses before a training, in splits without another error."""
        refused = []
        for split in self.splits:
            if any(finding.severity == "error" and split.name in finding.split for finding in found):
                continue
            with _messages():
                try:
                    split.data.check(split.data.provides)
                except InputError as error:
                    refused.append(Finding("check", split.name, 1, str(error)))
        return refused


@contextmanager
def _messages() -> Iterator[list[str]]:
    """Collects the warnings of data sets, which are then not logged."""
    logger, found = logging.getLogger("spine.data"), list[str]()

    def keep(record: logging.LogRecord) -> bool:
        found.append(record.getMessage())
        return False

    logger.addFilter(keep)
    try:
        yield found
    finally:
        logger.removeFilter(keep)


def _finding(kind: str, split: str, faults: Sequence[Fault], seen: str, todo: str = "") -> Finding:
    every = kind == "contradicting" or "duplicates" in kind
    files = [file for fault in faults for file in fault.files[: None if every else 1] or (f"sample {fault.index}",)]
    return Finding(kind, split, len(faults), seen, files[:LISTED], todo, list(faults[:EXAMPLES]))


def by_kind(name: str, faults: Sequence[Fault], split: Split | None) -> list[Finding]:
    """Returns one finding for each kind of the faults of a split."""
    groups: dict[str, list[Fault]] = {}
    listed: set[tuple[str, tuple[str, ...]]] = set()  # kinds and files that were reported by name, and are read again
    for fault in dict.fromkeys(faults):
        each_file = [(file,) for file in fault.files] if fault.kind in LISTS else [fault.files]
        for files in each_file or [()]:
            if not files or (fault.kind, files) not in listed:
                groups.setdefault(fault.kind, []).append(replace(fault, files=files))
            listed |= {(fault.kind, files)} if fault.kind in LISTS else set()
    found = []
    for kind, of_kind in groups.items():
        if kind == "sixteen_bit" and max(fault.values[0] for fault in of_kind) < MIN_PEAK_16_BIT:
            kind = "dark_16_bit"
        todo = ""
        seen = of_kind[0].message if len(of_kind) == 1 else f"{len(of_kind)} times; the first: {of_kind[0].message}"
        if kind == "unknown_values" and split is not None:
            values = sorted({value for fault in of_kind for value in fault.values})
            classes = len(split.data.labels.mask_classes) if not split.data.labels.multi_label else 2
            cause, todo = masks.likely_cause(values, classes)
            seen = (
                f"{counted(len(of_kind), 'mask')}, the first '{of_kind[0].files[0]}', with the values {format_names(values, 12)}; "
                f"there are {classes} classes. Most likely {cause}."
            )
        if kind == "class_folders":
            found.append(folders.summarize(kind, name, of_kind))
            continue
        found.append(_finding(kind, name, of_kind, seen, todo))
    return found


def find_duplicates(splits: Sequence[Split]) -> list[Finding]:
    """Returns findings about equal and nearly equal images, inside of splits and between them."""
    read = [(split, split.read.records) for split in splits if split.read is not None and len(split.read.records)]
    if not read:
        return []
    records = np.concatenate([of_split for _, of_split in read])
    owner = np.repeat(np.arange(len(read)), [len(of_split) for _, of_split in read])
    equal = duplicates.equal_groups(records["digest"])
    kept = np.ones(len(records), bool)
    for group in equal:  # one of each for the search for near-duplicates
        kept[group[1:]] = False
    positions = np.flatnonzero(kept)
    near = [positions[group] for group in duplicates.near_groups(records["hash"][kept], records["thumb"][kept])]
    found: dict[tuple[str, str], list[Fault]] = {}
    for groups, name in ((equal, "duplicates"), (near, "near_duplicates")):
        for group in groups:
            members = [read[owner[i]][0] for i in group]
            names = list(dict.fromkeys(split.name for split in members))
            labels = {int(label) for label in records["label"][group]}
            kind = f"{name}_{'between' if len(names) > 1 else 'inside'}"
            if name == "duplicates" and len(labels) > 1 and -1 not in labels:
                kind = "contradicting"
            files = tuple(split.name_of(records[i]) for split, i in zip(members, group, strict=True))
            fault = Fault(kind, format_names((f"'{file}'" for file in files), 3), files)
            found.setdefault((kind, ", ".join(names)), []).append(fault)
    return [
        _finding(
            kind,
            names,
            faults,
            f"{counted(len(faults), 'group')}, {sum(len(each.files) for each in faults)} images; {faults[0].message}.",
        )
        for (kind, names), faults in found.items()
    ]


def facts(split: Split) -> Facts:
    """Returns the figures of a split."""
    read = split.read
    assert read is not None
    result: Facts = {"samples": len(split.data), "images": len(split.groups), "classes": split.counts()}
    if len(read.records):
        result["sizes"] = statistics.sizes(read.records["size"])
        result["mean"], result["std"] = statistics.mean_and_std(read.records["mean"], read.records["square"])
    if read.pixels.any():
        names = split.data.labels.mask_classes
        shares = read.pixels / read.pixels.sum()
        result["pixel_share"] = {name: round(float(share), 5) for name, share in zip(names, shares, strict=True)}
    if read.visible.any():
        result["labeled_keypoints"] = dict(zip(split.data.labels.keypoints, read.visible.tolist(), strict=True))
    return result
