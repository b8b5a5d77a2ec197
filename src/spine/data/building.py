"""Builds the DataModule of a plain configuration."""

from __future__ import annotations

import os

from spine.config.completion import complete_input
from spine.config.instantiate import instantiate
from spine.config.schemas import LOADER_KEYS, Config
from spine.data.data_module import DataModule
from spine.data.relabeling import Relabeled
from spine.data.transforms import Transform
from spine.interfaces import DataSet, Labels
from spine.models.assembly import NetworkConfig


def build_data(config: Config, labels: Labels | None = None) -> DataModule:
    """The DataModule of a plain configuration; `.loader(split)` gives the batches of a split.

    `labels`: names that a checkpoint was trained for; the samples are numbered as they are. Raises InputError if the data set does not
    exist or a transform does not fit.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise its import asks the network for a newer version
    config = complete_input(config)
    node = config["dataset"]
    own = {key: value for key, value in node.items() if key not in LOADER_KEYS}
    needs = NetworkConfig.task_of(config).needs
    multiple = NetworkConfig.from_config(config, None).padding_multiple

    def open_split(split: str) -> DataSet:
        data: DataSet = instantiate("dataset", own, split=split)
        return data if labels is None else Relabeled(data, labels, needs)

    def transform(mode: str, data: DataSet) -> Transform:
        steps = [instantiate(f"augment.{mode}[{i}]", step) for i, step in enumerate(config["augment"][mode])]
        return Transform(steps, node["mean"], node["std"], data.labels.flip_pairs, multiple)

    return DataModule(
        open_split,
        transform,
        needs=needs,
        batch_size=node["batch_size"],
        num_workers=node["num_workers"],
        seed=config["seed"],
    )
