"""Several data sets of any formats, joined with weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from spine.config.dataset_parts import format_options
from spine.config.instantiate import instantiate
from spine.data import faults
from spine.data.joined import JoinedDataSets, unite_labels
from spine.errors import InputError
from spine.interfaces import DataSet
from spine.option_types import Config

SPLITS = ("train", "val", "test")


class Joined(JoinedDataSets):
    """Data sets of any formats as one. Classes with the same name are one class."""

    reads_files: ClassVar[bool] = False  # the parts have folders of their own

    def __init__(self, split: str, *, root: str | None = None, parts: Mapping[str, Config]):
        """`root` is not used; every data set accepts it.

        `parts`: the configuration of each part by name: `_target_`, the keys of its format, and if
        wanted `weight`, its share of the draws in training relative to the other parts, and `used_for`, the splits that have it.
        Without weights, each sample is drawn once.

        Raises InputError if a part does not exist, with whose absence the doctor goes on, if no part has the split, if the parts
        cannot be joined, or if only some have a weight.
        """
        if not parts:
            raise InputError("dataset=joined has no parts. Add some: +dataset@dataset.parts.<name>=<format>, each with its root.")
        used = {name: _splits_of(node) for name, node in parts.items()}
        opened: dict[str, DataSet] = {}
        for name, node in parts.items():  # also those without the split, for the names of their classes
            try:
                opened[name] = instantiate(
                    f"dataset.parts.{name}", format_options(node), split=split if split in used[name] else used[name][0]
                )
            except InputError as error:
                if split == "test" or not faults.is_collecting():  # many data sets have no test split
                    raise
                faults.report("cannot_open", f"Part '{name}': {error}")
        own = {name: data for name, data in opened.items() if split in used[name]}
        if not opened:
            raise InputError(f"No part of the joined data set can be opened for the split '{split}'.")
        if not own:
            listed = ", ".join(f"{name} for {' and '.join(splits)}" for name, splits in used.items())
            raise InputError(f"No part of the joined data set is used for the split '{split}': {listed}.")
        weights = {name: parts[name]["weight"] for name in own if parts[name].get("weight") is not None}
        if weights and len(weights) < len(own):
            missing = next(name for name in own if name not in weights)
            raise InputError(
                f"dataset.parts.{missing} has no weight, and other parts have one: give all of them a weight, or none."
            )
        super().__init__(own, unite_labels(opened), weights or None)


def _splits_of(node: Config) -> Sequence[str]:
    return node.get("used_for") or SPLITS
