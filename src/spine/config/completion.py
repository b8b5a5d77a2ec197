"""Completes a configuration: fills in what is null from the weight file, the published network and the usual defaults."""

from __future__ import annotations

import copy
import logging

from spine.checkpoints.input_settings import InputSettings, apply_changes, input_changes
from spine.components import component_name
from spine.config.schemas import Config
from spine.models.assembly import NetworkConfig, resolve_head_options
from spine.models.pretrained import read_weights, resolve_weights

log = logging.getLogger(__name__)


def complete(config: Config, report: bool = True) -> Config:
    """A copy of a plain configuration with image size, crop, mean and std, the variant and the options of the head filled in.

    They are those of the weight file and of the published network, else the usual ones. With `report`, logs a warning for each setting
    of the images that differs from the one that the weights were evaluated with. Raises InputError if the weights cannot be read.
    """
    config = complete_input(config, report)
    weights = config["backbone"].get("weights")
    network = NetworkConfig.from_config(config, placeholder_outputs(config))
    if weights is not None:
        network = resolve_weights(network, weights, config["backbone"].get("layout")).network
        config["backbone"].update(network.backbone_options)
    config["head"].update(resolve_head_options(network))
    return config


def complete_input(config: Config, report: bool = False) -> Config:
    """A copy of a plain configuration with image size, crop, interpolation, mean and std filled in. See `complete`."""
    config, node, settings = copy.deepcopy(config), config["backbone"], InputSettings()
    if node.get("weights") is not None:
        name = component_name("backbone", node["_target_"])
        settings = read_weights(name, node["weights"], {"variant": node.get("variant")}, node.get("layout")).input_settings
    changes, differences = input_changes(config, settings)
    apply_changes(config, changes)
    for difference in differences if report else ():
        log.warning("The weights '%s' were %s", node["weights"], difference)
    return config


def placeholder_outputs(config: Config) -> int | None:
    """A number of outputs for networks that are only compared, before the data set is opened."""
    return 2 if NetworkConfig.task_of(config).labels else None
