"""Writes the weights of a checkpoint in the layout of a publisher."""

from __future__ import annotations

import dataclasses
import json
import logging
from importlib.metadata import version

from omegaconf import DictConfig

from spine.checkpoints.run_checkpoint import read_checkpoint
from spine.commands.eval import register_checkpoint, saved_labels
from spine.components import backbone_builder, defaults
from spine.config.checks import check_network_options
from spine.config.command_line import run_command
from spine.config.places import check_targets
from spine.config.resolving import to_plain
from spine.config.schemas import Config
from spine.config.values import check_values

log = logging.getLogger(__name__)


def main() -> None:
    """Runs the command with the arguments of the command line."""
    run_command("export", export, register_checkpoint)


def export(cfg: DictConfig) -> None:
    """Writes the weights of a checkpoint under the names of a publisher, or spine's own."""
    config = to_plain(cfg)
    checkpoint, publisher, out = config.pop("ckpt_path"), config.pop("format"), config.pop("out")
    if "backbone" in config:
        config["backbone"]["weights"] = None
    check_targets(config)  # data and devices are those of the training; neither is needed here
    check_values(config)
    check_network_options(config)
    from spine.checkpoints import writer  # imports torch
    from spine.checkpoints.formats import layouts_of
    from spine.checkpoints.mapping import SPINE_LAYOUT
    from spine.models.assembly import NetworkConfig, network_of, resolve_backbone_options

    network = network_of(config, config["num_outputs"])
    model = network.build()
    state = read_checkpoint(checkpoint)["state_dict"]
    model.load_state_dict({key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")})
    if not isinstance(network, NetworkConfig):  # the files of other publishers are for backbones
        writer.write_own_names(model.state_dict(), publisher, out, _metadata(config, checkpoint))
        log.info("%s: %s", out, network.summary)
        return
    standard = defaults(backbone_builder(network.backbone))
    options = {**standard, **resolve_backbone_options(network)}
    layouts = (*layouts_of(network.backbone), SPINE_LAYOUT)
    layout = writer.layout_for(model.state_dict(), layouts, publisher, options, standard)
    backbone = {"backbone": network.backbone, "variant": network.variant}
    writer.write(model.state_dict(), layout, out, {**_metadata(config, checkpoint), **backbone})
    log.info("%s: %s %s under the names of %s", out, network.backbone, network.variant, publisher)
    if layout is not SPINE_LAYOUT:
        for key, other in writer.differing_options(layout, layouts, options, standard).items():
            log.info(
                "%s's network has %s %g by default. Build it with %g, the value of this training.",
                publisher, key, other, options[key],
            )  # fmt: skip


def _metadata(config: Config, checkpoint: str) -> dict[str, str]:
    """What a safetensors file carries next to the tensors, as text."""
    written = {
        "spine": version("spine"),
        "image_size": json.dumps(config["image_size"]),
        **{key: json.dumps(config["dataset"][key]) for key in ("mean", "std")},
        "channels": str(config["dataset"].get("channels") or "rgb"),
    }
    if (labels := saved_labels(checkpoint)) is not None:
        written["labels"] = json.dumps({key: value for key, value in dataclasses.asdict(labels).items() if value})
    return written
