"""The model that is exported, and the data set that its file is checked with."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from spine.checkpoints.run_checkpoint import read_checkpoint
from spine.config.building import build_network
from spine.config.checks import check_network_options, prepare
from spine.config.places import check_targets
from spine.config.schemas import PREDICTION
from spine.config.stored import saved_labels, use_saved_classes
from spine.config.values import FINETUNE, check_values
from spine.data.building import build_data
from spine.data.data_module import DataModule
from spine.errors import InputError
from spine.exporting.samples import SampleSource
from spine.interfaces import Labels
from spine.models.assembly import network_of
from spine.network_definition import NetworkDefinition
from spine.option_types import Config
from spine.prediction.loading import prepare_model
from spine.prediction.predictor import Predictor
from spine.prediction.published import published_labels

log = logging.getLogger(__name__)


def evaluation_config(config: Config, predictor: Predictor) -> Config:
    """Returns the configuration of an evaluation of a model in float32 on the CPU, from that of export.yaml."""
    config = _of_model(config)
    if "backbone" in config:
        config["backbone"]["weights"] = None  # the network of the predictor has them
    if "protocol" in config:
        config["protocol"] = {"name": FINETUNE}  # the network is evaluated as it is
    use_saved_classes(config, predictor.description.labels)
    config["trainer"] = {**config["trainer"], "accelerator": "cpu", "devices": 1, "precision": "32-true"}
    return {**config, "ckpt_path": None, "num_outputs": predictor.description.num_outputs}


def sample_source(config: Config, predictor: Predictor) -> SampleSource:
    """Returns where the images come from that a file is checked with: the data set of the model, or rendered images if it is not here.

    The reason is then logged.
    """
    height, width = predictor.description.image_size
    multiple = predictor.description.pad_multiple
    size = height + -height % multiple, width + -width % multiple
    data: DataModule | None = None
    try:
        data = build_data(prepare(evaluation_config(config, predictor)), predictor.description.labels)
        data.split("val")
    except InputError as error:
        log.warning("The file is compared on rendered images, since the data set cannot be read. %s", error)
        return SampleSource(predictor, None, size)
    data.num_workers = 0
    data.add_extras(predictor.task.sample_extras())
    return SampleSource(predictor, data, size)


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with its weights, without the task around it. config: complete, as far as the images are concerned."""

    definition: NetworkDefinition
    model: nn.Module
    labels: Labels | None
    config: Config


def load_network(config: Config, classes: Sequence[str] | str | None) -> LoadedNetwork:
    """Returns the network of a checkpoint or of published weights, in evaluation mode, with the names of its outputs.

    The data set and the tokenizer of the model are not needed. Raises InputError if parts of the configuration do not fit together.
    """
    checkpoint = config["ckpt_path"]
    if checkpoint is None:
        config = prepare_model(config)
        labels, config["num_outputs"] = published_labels(config, classes)
        model, report = build_network(config)
        log.info("%s", report)
        return LoadedNetwork(model.config, model.eval(), labels, config)  # type: ignore[arg-type]
    config = {**_of_model(config), "ckpt_path": None}
    if "backbone" in config:
        config["backbone"]["weights"] = None
    check_targets(config)
    check_values(config)
    check_network_options(config)
    definition = network_of(config, config["num_outputs"])
    model = definition.build()
    state = read_checkpoint(checkpoint)["state_dict"]
    model.load_state_dict({key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")})
    return LoadedNetwork(definition, model.eval(), saved_labels(checkpoint), config)


def _of_model(config: Config) -> Config:
    """Returns a copy of a configuration without the keys of the commands."""
    return {key: copy.deepcopy(value) for key, value in config.items() if key not in PREDICTION and key != "out"}
