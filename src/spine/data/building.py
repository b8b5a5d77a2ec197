"""Builds the DataModule of a plain configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial

from spine.config.completion import complete_input
from spine.config.dataset_parts import format_options
from spine.config.instantiate import instantiate
from spine.config.schemas import Config
from spine.data import faults
from spine.data.data_module import DataModule
from spine.data.detections import DetectedObjects
from spine.data.folds import fold_of_split
from spine.data.relabeling import Relabeled
from spine.data.subset import limited
from spine.data.transforms import Step, TopDownAffine
from spine.interfaces import DataSet, Labels
from spine.models.assembly import network_of, task_of


def build_data(config: Config, labels: Labels | None = None) -> DataModule:
    """Returns the DataModule of a plain configuration.

    `labels`: names that a checkpoint was trained for; annotations get the indices of these names.
    Raises InputError if a transform does not take its options.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise its import looks for a newer version on the network
    config = complete_input(config)
    node = config["dataset"]
    task = task_of(config)
    needs = task.needs
    resolution = config["task"].get("resolution", "original") if "resolution" in task.options else None

    def steps(mode: str) -> list[Step]:
        codec, nodes = config["task"].get("codec"), enumerate(config["augment"][mode])
        return [build_step(f"augment.{mode}[{i}]", node, codec) for i, node in nodes]

    boxes = config["task"].get("bbox_file") if "bbox_file" in task_of(config).data_options else None
    threshold = config["task"].get("bbox_threshold", 0.0)
    return DataModule(
        split_opener(node, config["seed"], labels, needs),
        steps("train"),
        steps("eval"),
        needs=needs,
        batch_size=node["batch_size"],
        global_batch_size=node.get("global_batch_size"),
        num_workers=node["num_workers"],
        cache=node.get("cache", "none"),
        cache_gb=node.get("cache_gb", 4.0),
        seed=config["seed"],
        mean=node["mean"],
        std=node["std"],
        channels=node.get("channels") or "rgb",
        repeats=node.get("repeats", 1),
        sampling=node.get("sampling", "shuffle"),
        on_error=node.get("on_error", "raise"),
        max_error_share=node.get("max_error_share", 0.01),
        pad_multiple=network_of(config, None).padding_multiple,
        resolution=resolution,
        evaluated=partial(DetectedObjects, path=boxes, threshold=threshold) if boxes is not None else None,
    )


def split_opener(
    node: Config, seed: int, labels: Labels | None = None, needs: frozenset[str] = frozenset()
) -> Callable[[str], DataSet]:
    """Returns a function that opens a split of a data set by its name, with the folds and the limit of its node.

    `seed`: of the run. `labels`: names that the annotations `needs` are numbered by; None: those of the data set.
    """
    options = format_options(node)

    @cache
    def open_whole(split: str) -> DataSet:
        with faults.skipping(node.get("on_error") == "skip"):
            data: DataSet = instantiate("dataset", options, split=split)
        return data if labels is None else Relabeled(data, labels, needs)

    def open_split(split: str) -> DataSet:
        count = node.get("k_fold")
        if count is None or split == "test":
            data = open_whole(split)
        else:
            data = fold_of_split(open_whole("train"), split, count, node.get("fold", 0), node.get("fold_seed", 0))
        if split != "train" or node.get("limit") is None:
            return data
        return limited(data, node["limit"], limit_seed(node, seed))

    return open_split


def build_step(path: str, node: Config, codec: str | None) -> Step:
    """Builds the step at `path`. Crops by a box use the pixel grid of the task's `codec`."""
    step: Step = instantiate(path, node)
    if isinstance(step, TopDownAffine) and codec is not None:
        step.set_codec(codec)
    return step


def limit_seed(node: Config, seed: int) -> int:
    """Returns the seed that chooses the samples of dataset.limit. `node`: of the data set. `seed`: of the run."""
    own: int | None = node.get("limit_seed")
    return seed if own is None else own
