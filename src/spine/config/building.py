"""Builds data, network and task of a plain configuration."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spine.config.targets import instantiate, named
from spine.errors import InputError

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from spine.datasets.module import DataModule
    from spine.interfaces import DataSet, Labels
    from spine.tasks.base import Task

log = logging.getLogger(__name__)
OF_LOADER = ("image_size", "batch_size", "num_workers", "mean", "std")  # keys of conf/dataset that are not the format's


def build_data(config: dict[str, Any], labels: Labels | None = None) -> DataModule:
    """The DataModule of a plain configuration. `labels`: names of a checkpoint, under whose numbers the samples are given."""
    from spine.datasets.module import DataModule
    from spine.datasets.relabel import Relabeled
    from spine.datasets.transforms import Transform
    from spine.model import task_facts

    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for a newer version
    settle_input(config, report=False)  # nothing is left to do where the configuration was checked
    node = config["dataset"]
    own = {key: value for key, value in node.items() if key not in OF_LOADER}
    augment = config["augment"]
    multiple = padded_size(config)[1]

    needs = task_facts(named(config["task"])).needs

    def open_split(split: str) -> DataSet:
        data: DataSet = instantiate("dataset", own, split=split)
        return data if labels is None else Relabeled(data, labels, needs)

    def transform(mode: str, data: DataSet) -> Transform:
        steps = [instantiate(f"augment.{mode}[{i}]", step) for i, step in enumerate(augment[mode])]
        return Transform(steps, node["mean"], node["std"], data.labels.flip_pairs, multiple)

    return DataModule(
        open_split,
        transform,
        needs=needs,
        batch_size=node["batch_size"],
        num_workers=node["num_workers"],
        seed=config["seed"],
    )


def outputs_of(task: str, labels: Any) -> int | None:
    """How many outputs a task's head needs for a data set's labels; None where the patch decides."""
    kinds = {"cls": labels.classes, "seg": labels.mask_classes, "pose": labels.keypoints}
    return len(kinds[task]) if task in kinds else None


def build(config: dict[str, Any], split: str = "train", saved_labels: Labels | None = None) -> tuple[Task, DataModule]:
    """Task and DataModule of a plain, checked configuration. Writes into it what was found out: num_outputs, precision.

    `split` is opened for the names of its classes; `saved_labels` are those of a checkpoint, which count instead.
    """
    import torch

    from spine.model import load_weights
    from spine.precision import resolve_precision, set_float32_precision

    trainer = config["trainer"]
    trainer["precision"] = resolve_precision(trainer["precision"], trainer["accelerator"])
    set_float32_precision(trainer["precision"])
    task = named(config["task"])
    data = build_data(config, saved_labels)
    labels = data.split(split).labels
    outputs = outputs_of(task, labels)
    if config.get("num_outputs") not in (None, outputs):
        raise InputError(
            f"The checkpoint's head has {config['num_outputs']} outputs, but the data set has {outputs}. Evaluate it on data "
            f"with the classes or keypoints that it was trained for."
        )
    config["num_outputs"] = outputs
    opened = open_weights(config, outputs)
    model = build_model(config, outputs).to(memory_format=torch.channels_last)
    loaded = load_weights(model, parts(config, outputs)[0], opened) if opened is not None else None
    if config["compile"]:
        model.compile_parts()
    module = instantiate(
        "task",
        config["task"],
        model=model,
        optimizer=partial(instantiate, "optimizer", config["optimizer"]),
        schedule=partial(instantiate, "schedule", config["schedule"]),
        labels=labels,
    )
    if task == "mae":
        # only the network knows its patches, and only the data how many outputs the network has: the mask is set last
        data.mask_patches(model.grid[0] * model.grid[1], module.mask_ratio)
    module.config = config
    module.weights = loaded
    return module, data


def padded_size(config: dict[str, Any]) -> tuple[tuple[int, int], int]:
    """The size of the images that reach the network, and the multiple that dense tasks pad to for token models (else 1)."""
    import torch

    from spine.model import backbone_module

    height, width = config["image_size"]
    if named(config["task"]) != "seg":
        return (height, width), 1
    name = named(config["backbone"])
    options = {"variant": config["backbone"]["variant"]} if config["backbone"].get("variant") else {}
    with torch.device("meta"):
        patch = getattr(backbone_module(name), name)(**options, use="maps").spec.patch_size or 1
    return (height + -height % patch, width + -width % patch), patch


def settle_input(config: dict[str, Any], report: bool = True) -> None:
    """Fills in what is null of image size, crop, interpolation, mean and std: as the weights were evaluated, else as is usual.

    With `report`, warns of each of them that the configuration sets to something else.
    """
    from spine.inputs import InputSettings, apply_changes
    from spine.inputs import settle_input as settle
    from spine.model import read_weights

    node, settings = config["backbone"], InputSettings()
    if node.get("weights") is not None:
        opened = read_weights(named(node), node["weights"], {"variant": node.get("variant")}, node.get("layout"))
        settings = opened.input_settings
    changes, differences = settle(config, settings)
    apply_changes(config, changes)
    for difference in differences if report else ():
        log.warning("The weights '%s' were %s", node["weights"], difference)


def settle_head(config: dict[str, Any]) -> None:
    """Writes the options of the head that are null into a plain configuration: the published network's, else the head's own."""
    from spine.model import settle_head_options

    own = {key: value for key, value in config["head"].items() if key not in ("_target_", "levels")}
    backbone = config["backbone"]
    config["head"].update(settle_head_options(named(backbone), named(config["head"]), backbone.get("variant"), own))


def parts(config: dict[str, Any], num_outputs: int | None) -> tuple[partial, dict[str, Any], dict[str, Any]]:
    """What makes the network of a plain configuration, to be called with the options of backbone and head; and these options."""
    from spine.model import build

    levels = config["head"].get("levels")
    make = partial(
        build,
        named(config["backbone"]),
        named(config["head"]),
        named(config["task"]),
        num_outputs,
        image_size=padded_size(config)[0],
        levels=tuple(levels) if levels is not None else None,
    )
    backbone = {key: value for key, value in config["backbone"].items() if key not in ("_target_", "weights", "layout")}
    head = {key: value for key, value in config["head"].items() if key not in ("_target_", "levels")}
    return make, backbone, head


def build_model(config: dict[str, Any], num_outputs: int | None) -> Any:
    """The network of a plain configuration, without weights."""
    make, backbone, head = parts(config, num_outputs)
    return make(backbone_options=backbone, head_options=head)


def open_weights(config: dict[str, Any], num_outputs: int | None) -> Any:
    """The weights file that a plain configuration names, or None; what it tells of conventions and variant is written into it."""
    if config["backbone"].get("weights") is None:
        return None
    from spine import model

    make, backbone, head = parts(config, num_outputs)
    opened = model.open_weights(make, config["backbone"]["weights"], backbone, head, config["backbone"].get("layout"))
    config["backbone"].update(opened.backbone_options)
    config["head"].update(opened.head_options)
    return opened


def build_trainer(config: dict[str, Any], folder: Path, task: Task, kept_rows: int = 0) -> pl.Trainer:
    """Lightning's Trainer of a plain configuration, with the loggers and callbacks that it names.

    `kept_rows`: rows of metrics.csv that a resumed run keeps.
    """
    from spine.training.trainer import make_trainer

    named_loggers, more = config.get("logger") or {}, config["callbacks"].get("more") or {}
    callbacks = [instantiate(f"callbacks.more.{name}", node) for name, node in more.items()]
    loggers = [instantiate(f"logger.{name}", node, folder=str(folder)) for name, node in named_loggers.items()]
    return make_trainer(config, folder, task, loggers, callbacks, kept_rows)
