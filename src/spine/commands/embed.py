"""Writes the pooled embeddings of a split to a file.

    python -m spine.embed ckpt_path=<file> out=embeddings.parquet [split=val] [<key>=<value> ...]
    python -m spine.embed backbone=mae backbone.weights=<file> dataset=image_folder dataset.root=<folder> out=embeddings.npz

A checkpoint can be of any task. Its backbone is built with the pooling of a classifier.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from spine.config.command_line import run_command
from spine.config.resolving import to_plain
from spine.errors import InputError

if TYPE_CHECKING:
    from spine.models.network import Model
    from spine.option_types import Config

log = logging.getLogger(__name__)
OWN_KEYS = ("out=", "split=")  # keys of this command that train.yaml does not have


def main() -> None:
    """Runs the command with the arguments of the command line."""
    from spine.commands.eval import register_checkpoint

    given = [argument.partition("=")[0] for argument in sys.argv[1:]]
    if "backbone.weights" in given and "ckpt_path" not in given:
        arguments = [f"+{argument}" if argument.startswith(OWN_KEYS) else argument for argument in sys.argv[1:]]
        sys.argv[1:] = [*arguments, "task_name=embed"]
        run_command("train", embed)
    else:
        run_command("embed", embed, register_checkpoint)


def embed(cfg: DictConfig) -> None:
    """Embeds a split with the backbone of a checkpoint or of a weight file, and writes the embeddings."""
    from spine.config.checks import prepare
    from spine.config.stored import saved_labels, use_saved_classes
    from spine.reporting.vector_files import check_vector_file, write_vectors

    config = to_plain(cfg)
    split, out = config.pop("split", "val"), config.pop("out", None)
    if out is None:
        raise InputError("out is missing: give out=embeddings.npz or out=embeddings.parquet.")
    check_vector_file(Path(out))
    if "backbone" not in config:
        raise InputError("This checkpoint is of a network without a backbone, which has no pooled embeddings.")
    checkpoint, labels = config.pop("ckpt_path"), None
    if checkpoint is not None:
        config["backbone"]["weights"] = None  # all weights are in the checkpoint
        if (labels := saved_labels(checkpoint)) is not None:
            use_saved_classes(config, labels)
    config = prepare(config)
    import torch

    from spine.data.building import build_data
    from spine.evaluation.embedding import embed_split

    accelerated = config["trainer"]["accelerator"] != "cpu" and torch.accelerator.is_available()
    device = torch.accelerator.current_accelerator() if accelerated else torch.device("cpu")
    data, root = build_data(config, labels), config["dataset"].get("root")
    found = embed_split(load_pooled(config, checkpoint), data, split, device or torch.device("cpu"), root)
    write_vectors(Path(out), *found)
    log.info("%s: %d embeddings of width %d, split %s", out, *found.vectors.shape, split)


def load_pooled(config: Config, checkpoint: str | None) -> Model:
    """Returns a classifier with the backbone of a complete configuration. Its head is not trained.

    `checkpoint`: a checkpoint of any task; None for backbone.weights. Logs what was loaded.
    """
    from spine.components import task_spec
    from spine.models.assembly import NetworkConfig
    from spine.models.network import Model
    from spine.models.pretrained import load_weights, resolve_weights

    spec = task_spec("cls")
    assert spec.default_head is not None
    network = NetworkConfig.from_config(config, 1)
    network = replace(
        network, task=spec, head=spec.default_head, num_outputs=1, head_options={}, auxiliary_head=None, levels=None
    )
    weights = checkpoint or config["backbone"]["weights"]
    resolved = resolve_weights(network, weights, None if checkpoint else config["backbone"].get("layout"))
    model = resolved.network.build()
    report = load_weights(model, resolved)
    report.new = [name for name in report.new if not name.startswith("head.")]  # the head is not used
    log.info("%s", report)
    assert isinstance(model, Model)
    return model
