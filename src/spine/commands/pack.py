"""Packs a data set into tar shards of WebDataset's convention, with an index, which dataset=shards reads.

    python -m spine.pack dataset=image_folder dataset.root=photos out=shards shard_mb=256 workers=8

An interrupted packing goes on when the same command is repeated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from omegaconf import DictConfig, open_dict
from pydantic import Field

from spine.command_lines import refuse_sweeps
from spine.config.command_line import run_command
from spine.config.resolving import to_plain
from spine.errors import InputError
from spine.option_types import AboveZero, Allowed, Count, Positive, Schema, Text

if TYPE_CHECKING:
    from spine.interfaces import DataSet
    from spine.option_types import Config

SPLITS = ("train", "val", "test")
KEYS: Schema = {  # keys of this command that train.yaml does not have
    "out": Allowed(Text, "the path of a new folder"),
    "pack_splits": Allowed(Annotated[list[Text], Field(min_length=1)] | None, "a list of splits, such as [train, val], or null"),
    "shard_mb": Allowed(AboveZero, "a number of MiB above 0"),
    "store_seed": Allowed(Count | None, "a whole number, 0 or more, or null"),
    "workers": Allowed(
        Positive | Annotated[int, Field(ge=-1, le=-1)], "a whole number of processes, 1 or more, or -1 for one per core"
    ),
}


def main() -> None:
    """Runs the command with the arguments of the command line."""
    run_command("pack", pack, partial(refuse_sweeps, "spine.pack packs one data set"))


def pack(cfg: DictConfig) -> None:
    """Packs the splits of a data set.

    Raises InputError for a mistake in the configuration or in the data, or if `out` has something else.
    """
    config = to_plain(cfg)
    options = {key: config.pop(key) for key in KEYS}
    with open_dict(cfg):
        for key in KEYS:
            cfg.pop(key)
    from spine.config.checks import check_root
    from spine.config.instantiate import target_of
    from spine.config.places import check_targets
    from spine.config.values import check_schema, check_values

    check_schema(options, KEYS, "")
    check_targets(config)
    check_values(config)
    node = config["dataset"]
    if target_of("dataset", node).reads_files:
        check_root(node)
    pack_data(node, Path(options["out"]).expanduser(), options, config["seed"])


def pack_data(node: Config, folder: Path, options: Config, seed: int = 0) -> None:
    """Packs the splits of a data set into a folder. They are opened as a training opens them, with their folds and their limit.

    `node`: of the data set. `options`: of the command. `seed`: of the configuration, which chooses the samples of a limit. Raises
    InputError for settings that shards cannot have.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from spine.data.building import split_opener
    from spine.data.shards import packing

    _check_packable(node)
    workers = (os.cpu_count() or 1) if options["workers"] == -1 else options["workers"]
    source = {"dataset": _source(node, seed), **{key: options[key] for key in ("pack_splits", "shard_mb", "store_seed")}}
    if packing.begin(folder, source):
        print(f"{folder} is complete: nothing is left to pack.")
        return
    opened = _open_splits(split_opener(node, seed), options["pack_splits"])
    descriptions, labels = {}, next(iter(opened.values())).labels
    if different := [split for split, data in opened.items() if data.labels != labels]:
        raise InputError(
            f"Split {different[0]} does not have the classes, keypoints and colors of {next(iter(opened))}, and shards have one list of "
            f"them. Pack it into a folder of its own: pack_splits=[{different[0]}]."
        )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    for split, data in opened.items():
        data.check(data.provides)
        plan = packing.plan_split(data, split, options["shard_mb"], options["store_seed"])
        with Progress(*columns, transient=True, disable=not Console().is_terminal) as progress:
            bar = progress.add_task(split, total=len(data))
            descriptions[split] = packing.pack_split(data, plan, folder, workers, lambda done: progress.advance(bar, done))  # noqa: B023
        size = sum(shard["bytes"] for shard in descriptions[split]["shards"])
        print(f"{split}: {len(data):,} samples in {plan.shards} shards, {size / packing.MIB:,.1f} MiB")
    packing.finish(folder, labels, descriptions)
    print(f"dataset=shards dataset.root={folder}{' dataset.sampling=weighted' * _is_weighted(node, opened)}")


def _check_packable(node: Config) -> None:
    """Raises InputError for settings of the loader that change how often a sample is drawn, or that leave samples out."""
    changed = {
        "sampling": node.get("sampling") in ("class_balanced", "square_root"),  # weights are stored with the samples
        "repeats": node.get("repeats", 1) > 1,
        "on_error": node.get("on_error") == "skip",
    }
    for key, is_changed in changed.items():
        if is_changed:
            raise InputError(
                f"dataset.{key}={node[key]} cannot be packed, because shards store every sample once: leave it out here, and set "
                f"it in the training that reads the shards."
            )


def _source(node: Config, seed: int) -> Config:
    """Returns what determines the samples of the splits."""
    from spine.config.dataset_parts import format_options
    from spine.data.building import limit_seed

    found = format_options(node)
    if node.get("k_fold") is not None:
        found |= {key: node.get(key, 0) for key in ("k_fold", "fold", "fold_seed")}
    if node.get("limit") is not None:
        found |= {"limit": node["limit"], "limit_seed": limit_seed(node, seed)}
    return found


def _is_weighted(node: Config, opened: Mapping[str, DataSet]) -> bool:
    """Whether the training samples have different weights, by which they are drawn."""
    weights = opened["train"].sample_weights() if "train" in opened else None
    return node.get("sampling") == "weighted" and weights is not None and len(set(weights.tolist())) > 1


def _open_splits(open_split: Callable[[str], DataSet], wanted: list[str] | None) -> dict[str, DataSet]:
    """Returns the data sets of the splits. Raises InputError if a wanted one, or every one, cannot be opened."""
    opened, reasons = {}, {}
    for split in wanted or SPLITS:
        try:
            opened[split] = open_split(split)
        except InputError as error:
            if wanted is not None:
                raise
            reasons[split] = error
    if not opened:
        raise reasons["train"]
    for split, reason in reasons.items():
        print(f"Split {split} is left out: {reason}")
    return opened
