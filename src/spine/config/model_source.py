"""The configuration of a trained model: that of its checkpoint, or for published weights the defaults of train.yaml."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

from spine.components import task_spec
from spine.config.conf_folder import conf_folder
from spine.config.resolving import to_plain
from spine.config.stored import checkpoint_config
from spine.errors import InputError
from spine.option_types import Config

HELP = {"--help", "-h", "--hydra-help", "--version", "-sc", "--shell-completion"}  # Hydra handles these; they need no model
DATASETS: Mapping[str | None, str] = {  # formats whose defaults published networks get, by what their outputs are for
    "classes": "image_folder", "mask_classes": "mask_folder", "keypoints": "coco_keypoints", None: "image_folder",
}  # fmt: skip


def register_model(arguments: Sequence[str]) -> None:
    """Registers the configuration of a model with Hydra, as the base of predict.yaml. Overrides are checked against it.

    The model is ckpt_path=... or backbone.weights=... among the arguments. Raises InputError if it is neither.
    """
    given = dict(argument.lstrip("+").split("=", 1) for argument in arguments if "=" in argument)
    if (path := given.get("ckpt_path", "null")) != "null":
        config = checkpoint_config(os.path.expanduser(path.strip("'\"")))
    elif "backbone.weights" in given:
        dataset = DATASETS[task_spec(given.get("task", "cls")).labels]
        config = {"defaults": ["train", {"override /dataset": dataset}, "_self_"]}
    elif HELP & set(arguments):
        config = {}
    else:
        raise InputError(
            "Which model? Give ckpt_path=logs/.../checkpoints/best.ckpt, or backbone=<name> backbone.weights=<file> of published "
            "weights."
        )
    ConfigStore.instance().store("checkpoint", config)


def compose_model(arguments: Sequence[str]) -> Config:
    """Returns the configuration of a model as `predict.py` composes it from arguments, without the command line.

    Raises InputError if the arguments name no model.
    """
    register_model(arguments)
    hydra = GlobalHydra.instance()
    outer = hydra.hydra  # of a program that uses Hydra itself
    hydra.clear()
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return to_plain(compose("predict", [*arguments, "source=null"]))
    finally:
        hydra.clear()
        hydra.hydra = outer
