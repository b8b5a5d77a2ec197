"""Builds the network, the data set, the task and the trainer of a complete configuration."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn

from spine.checkpoints.loading import LoadReport
from spine.checkpoints.tokenizer_files import load_tokenizer
from spine.config.instantiate import instantiate
from spine.data.building import build_data
from spine.data.data_module import DataModule
from spine.errors import InputError
from spine.interfaces import BatchTransform, Labels
from spine.models.assembly import NetworkConfig, network_of, task_of
from spine.models.pretrained import configured_weights, load_weights
from spine.option_types import Config
from spine.task_spec import Protocol
from spine.tasks.base import Task
from spine.tokenizers.dvae import DiscreteVAE
from spine.training.batch_augmentation import BatchAugmentation
from spine.training.global_batch import count_step_samples
from spine.training.loggers.run_logger import LoggedRun
from spine.training.precision import resolve_precision, set_float32_precision
from spine.training.trainer import make_trainer


@dataclass(frozen=True)
class Run:
    """The parts of a run, built from a configuration.

    `config`: the configuration with the number of outputs and the precision filled in.
    """

    config: Config
    task: Task
    data: DataModule
    load_report: LoadReport | None  # of the pretrained weights


def build_run(
    config: Config,
    split: str = "train",
    saved_labels: Labels | None = None,
    network_size: tuple[int, int] | None = None,
) -> Run:
    """Builds the data, the network and the task of a complete configuration, which is not changed.

    `split`: the split that is opened to get the names of the classes. `saved_labels`: names from a
    checkpoint, used instead. `network_size`: the image size for which the position embedding of the
    network is created, if it is not that of the images. Raises InputError if the data set does not exist, or if its classes
    differ from those of the checkpoint.
    """
    config = copy.deepcopy(config)
    trainer = config["trainer"]
    trainer["precision"] = resolve_precision(trainer["precision"], trainer["accelerator"])
    set_float32_precision(trainer["precision"])
    spec = task_of(config)
    tokenizer = load_tokenizer(config["tokenizer"]) if spec.reads_tokenizer else None
    data = build_data(config, saved_labels)
    labels = data.split(split).labels
    outputs = spec.count_outputs(labels) if tokenizer is None else tokenizer.num_codes
    if config.get("num_outputs") not in (None, outputs):
        if tokenizer is not None:
            raise InputError(
                f"The checkpoint's head predicts {config['num_outputs']} codes, but the tokenizer '{config['tokenizer']}' has "
                f"{outputs}. Give the tokenizer that the network was trained with."
            )
        raise InputError(
            f"The checkpoint's head has {config['num_outputs']} outputs, but the data set has {outputs}. Evaluate it on data "
            f"with the classes or keypoints that it was trained for."
        )
    config["num_outputs"] = outputs
    task, report = build_task(config, labels, tokenizer, network_size)
    data.add_extras(task.sample_extras())
    return Run(config, task, data, report)


def build_task(
    config: Config, labels: Labels, tokenizer: DiscreteVAE | None = None, network_size: tuple[int, int] | None = None
) -> tuple[Task, LoadReport | None]:
    """Builds the network and the task of a configuration with its number of outputs, or the protocol of the task.

    `tokenizer`: of a task that reads one. Also returns the report of the loading of weights, or None.
    """
    model, report = build_network(config, network_size)
    protocol = find_protocol(config)
    if config["compile"]:
        compiled = model if protocol is None else model.get_submodule("backbone")
        compiled.compile()
    task: Task = instantiate(
        "task" if protocol is None else "protocol",
        _task_node(config, protocol),
        model=model,
        optimizer=partial(instantiate, "optimizer", config["optimizer"]),
        schedule=partial(instantiate, "schedule", config["schedule"]),
        labels=labels,
        **({} if tokenizer is None else {"tokenizer": tokenizer}),
    )
    task.config = config
    return task, report


def find_protocol(config: Config) -> Protocol | None:
    """Returns the protocol of a configuration, or None if the whole network is trained."""
    node: Config = config.get("protocol") or {}
    return task_of(config).protocols.get(node.get("name", ""))


def _task_node(config: Config, protocol: Protocol | None) -> Config:
    """Returns the node of the task, without the options of its network and of its data. With a protocol, it has the protocol's class
    and options.
    """
    others = {**task_of(config).network_options, **task_of(config).data_options}
    own = {key: value for key, value in config["task"].items() if key not in others}
    if protocol is None:
        return own
    options = {key: value for key, value in config["protocol"].items() if key != "name"}
    return {**own, **options, "_target_": protocol.target}


def build_network(config: Config, network_size: tuple[int, int] | None = None) -> tuple[nn.Module, LoadReport | None]:
    """Builds the network of a complete configuration, and loads its pretrained weights.

    The memory format is channels_last. Also returns the report of the loading, or None if the
    configuration names no weights.
    """
    network = network_of(config, config["num_outputs"])
    if network_size is not None and isinstance(network, NetworkConfig):
        network = replace(network, image_size=network_size)
    weights = configured_weights(config, network)
    model = (network if weights is None else weights.network).build()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's annotations
    return model, load_weights(model, weights) if weights is not None else None


def batch_transform(config: Config) -> BatchTransform | None:
    """Returns the transform of whole batches of a configuration, if it has one."""
    node = config["augment"].get("batch")
    return instantiate("augment.batch", node) if node is not None else None


def build_trainer(config: Config, folder: Path, task: Task, kept_rows: int = 0, checkpoint: str | None = None) -> pl.Trainer:
    """Creates Lightning's Trainer of a plain configuration, with its loggers and callbacks.

    The optimizer of `task` gets the size of a step, on which the learning rate may depend.

    `kept_rows`: number of rows of metrics.csv that a resumed run keeps. `checkpoint`: the file that
    an evaluation reads.
    """
    named_loggers, more = config.get("logger") or {}, config["callbacks"].get("more") or {}
    callbacks = [instantiate(f"callbacks.more.{name}", node) for name, node in more.items()]
    if (transform := batch_transform(config)) is not None:
        callbacks.append(BatchAugmentation(transform, config["seed"]))
    logged = LoggedRun(folder, Path(checkpoint) if checkpoint is not None else None)
    loggers = [instantiate(f"logger.{name}", node, run=logged) for name, node in named_loggers.items()]
    trainer = make_trainer(config, folder, task, loggers, callbacks, kept_rows)
    samples = count_step_samples(config, trainer.world_size)
    task.make_optimizer = partial(instantiate, "optimizer", config["optimizer"], global_batch_size=samples)
    return trainer
