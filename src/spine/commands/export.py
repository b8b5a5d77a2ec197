"""Writes the weights of a checkpoint as others publish them."""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
from importlib.metadata import version

from omegaconf import DictConfig

from spine.commands.evaluate import saved_labels
from spine.config.building import build_model, parts, settle_head
from spine.config.checks import check_network_options
from spine.config.resolving import plain
from spine.config.targets import check_targets, named
from spine.config.values import check_values

log = logging.getLogger(__name__)


def export(cfg: DictConfig) -> None:
    """Writes the weights of a checkpoint under a publisher's names, or our own."""
    import torch

    from spine import names, weights
    from spine.model import backbone_module

    config = plain(cfg)
    checkpoint, publisher, out = config.pop("ckpt_path"), config.pop("format"), config.pop("out")
    config["backbone"]["weights"] = None
    check_targets(config)  # data and devices are those of the training; nothing of them is needed here
    check_values(config)
    check_network_options(config)
    settle_head(config)
    labels = saved_labels(checkpoint)
    model = build_model(config, config["num_outputs"])
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")})
    backbone = named(config["backbone"])
    module = backbone_module(backbone)
    defaults = {name: p.default for name, p in inspect.signature(getattr(module, backbone)).parameters.items()}
    options = {**defaults, **parts(config, config["num_outputs"])[1]}
    layouts = (*module.LAYOUTS, names.OWN)
    layout = names.layout_for(model.state_dict(), layouts, publisher, options, defaults)
    written = {
        "spine": version("spine"),
        "backbone": backbone,
        "variant": config["backbone"]["variant"] or defaults["variant"],
        "image_size": json.dumps(config["image_size"]),
        **{key: json.dumps(config["dataset"][key]) for key in ("mean", "std")},
    }
    if labels is not None:
        written["labels"] = json.dumps({key: value for key, value in dataclasses.asdict(labels).items() if value})
    weights.write(model.state_dict(), layout, out, written)
    log.info("%s: %s %s under the names of %s", out, backbone, config["backbone"]["variant"], publisher)
    if layout is not names.OWN:
        for key, theirs in names.differing(layout, layouts, options, defaults).items():
            log.info(
                "%s's network has %s %g by default; build it with %g, as this one was trained.",
                publisher,
                key,
                theirs,
                options[key],
            )
