"""Writes the weights of a checkpoint as others publish them."""

from __future__ import annotations

import inspect

from omegaconf import DictConfig

from spine.config.building import build_model, parts
from spine.config.checks import check
from spine.config.resolving import plain
from spine.config.targets import named


def export(cfg: DictConfig) -> None:
    """Writes the weights of a checkpoint under a publisher's names, or our own."""
    import torch

    from spine import names, weights
    from spine.model import backbone_module

    config = plain(cfg)
    checkpoint, publisher, out = config.pop("ckpt_path"), config.pop("format"), config.pop("out")
    config["backbone"]["weights"] = None
    check(config)
    model = build_model(config, config["num_outputs"])
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")})
    backbone = named(config["backbone"])
    module = backbone_module(backbone)
    defaults = {name: p.default for name, p in inspect.signature(getattr(module, backbone)).parameters.items()}
    options = {**defaults, **parts(config, config["num_outputs"])[1]}
    layouts = (*module.LAYOUTS, names.OWN)
    layout = names.layout_for(model.state_dict(), layouts, publisher, options, defaults)
    weights.write(model.state_dict(), layout, out)
    print(f"{out}: {backbone} {config['backbone']['variant']} under the names of {publisher}")
    if layout is not names.OWN:
        for key, theirs in names.differing(layout, layouts, options, defaults).items():
            print(
                f"{publisher}'s network has {key} {theirs:g} by default; build it with {options[key]:g}, as this one was trained."
            )
