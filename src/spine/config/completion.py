"""Completes a configuration by replacing null.

The values are those of the weight file or of the published network, otherwise defaults.
"""

from __future__ import annotations

import copy
import logging

import torch

from spine.checkpoints.input_settings import InputSettings, apply_changes, input_changes
from spine.components import component_name
from spine.errors import InputError
from spine.models.assembly import (
    NetworkConfig,
    network_of,
    resolve_auxiliary_head,
    resolve_backbone_options,
    resolve_head_options,
    task_of,
)
from spine.models.masked import MaskedModel
from spine.models.pretrained import configured_weights, read_weights
from spine.option_types import Config
from spine.tokenizers.dvae import STRIDE

log = logging.getLogger(__name__)


def complete(config: Config, report: bool = True) -> Config:
    """Returns a copy of a plain configuration with its null values filled in.

    These are image size, crop, mean, std, the variant, options of backbone and heads, and the size of images
    for a tokenizer. The values are those of the weight file and of the published network, otherwise
    defaults. With `report`, logs a
    warning for each image setting that differs from the one with which the weights were evaluated.
    Raises InputError if the weights cannot be read.
    """
    config = complete_input(config, report)
    network = network_of(config, placeholder_outputs(config))
    if not isinstance(network, NetworkConfig):
        return config
    if (weights := configured_weights(config, network)) is not None:
        network = weights.network
        config["backbone"].update(network.backbone_options)
    config["backbone"].update(resolve_backbone_options(network))
    config["head"].update(resolve_head_options(network))
    if network.levels is not None:  # a weight file may determine them
        config["head"]["levels"] = list(network.levels)
    if auxiliary := resolve_auxiliary_head(network):
        config["auxiliary_head"] = auxiliary
    elif network.auxiliary_head is not None:  # left out, or the weight file has none
        config["auxiliary_head"] = dict(network.auxiliary_head)
    if network.task.reads_tokenizer:
        _complete_views(config, network)
    return config


def _complete_views(config: Config, network: NetworkConfig) -> None:
    """Sets the size of the images for the tokenizer, which has one token for each patch of the network.

    Raises InputError if the augmentation makes no such images, or some of another size.
    """
    with torch.device("meta"):
        model = network.build()
    assert isinstance(model, MaskedModel)
    grid = model.grid
    size = [grid[0] * STRIDE, grid[1] * STRIDE]
    for mode in ("train", "eval"):
        steps = [step for step in config["augment"][mode] if "second_size" in step]
        if not steps:
            raise InputError(
                f"Task '{network.task.name}' needs each image at the size of its tokenizer too, which augment.{mode} does not make. "
                f"Use augment=beit, or end the list with spine.data.transforms.TwoViews."
            )
        for step in steps:
            if step["second_size"] not in (None, size):
                raise InputError(
                    f"second_size of augment.{mode} is {step['second_size']}; for the {grid[0]}x{grid[1]} patches of this network "
                    f"it is {size}. Set it to null."
                )
            step["second_size"] = size


def complete_input(config: Config, report: bool = False) -> Config:
    """Returns a copy of a plain configuration with the image settings filled in. See `complete`.

    These are image size, crop, interpolation, mean and std.
    """
    config, backbone, settings = copy.deepcopy(config), config.get("backbone") or {}, InputSettings()
    if (weights := backbone.get("weights")) is not None:
        name = component_name("backbone", backbone["_target_"])
        settings = read_weights(name, weights, {"variant": backbone.get("variant")}, backbone.get("layout")).input_settings
    changes, differences = input_changes(config, settings)
    apply_changes(config, changes)
    for difference in differences if report else ():
        log.warning("The weights '%s' were %s", weights, difference)
    return config


def placeholder_outputs(config: Config) -> int | None:
    """Returns a number of outputs for networks that are built for checks only.

    The data set, which determines the number, is not open at that time.
    """
    return 2 if task_of(config).labels else None
