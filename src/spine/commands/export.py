"""Writes a trained network for other programs: ONNX, torch.export, TorchScript, or its weights as publishers name them."""

from __future__ import annotations

import dataclasses
import json
import logging
from importlib.metadata import version
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from spine.config.command_line import run_command
from spine.config.model_source import register_model
from spine.config.resolving import to_plain
from spine.config.schemas import PREDICTION
from spine.config.values import check_schema
from spine.errors import InputError
from spine.exporting.options import OPTIONS, ExportOptions
from spine.option_types import Config

if TYPE_CHECKING:
    from pathlib import Path

    from spine.exporting.graph_export import Exported
    from spine.interfaces import Labels

log = logging.getLogger(__name__)
Classes = list[str] | str | None  # names of the outputs of published weights, or a file with them


def main() -> None:
    """Runs the command with the arguments of the command line."""
    run_command("export", export, register_model)


def export(cfg: DictConfig) -> None:
    """Exports the network of a checkpoint or of published weights."""
    config = to_plain(cfg)
    schema = {**OPTIONS, "classes": PREDICTION["classes"]}
    check_schema({key: config[key] for key in schema}, schema, "")
    options, classes = ExportOptions.take(config), config.pop("classes")
    if options.is_graph:
        export_computation(config, options, classes)
    else:
        export_weights(config, options, classes)


def export_computation(config: Config, options: ExportOptions, classes: Classes) -> None:
    """Writes a file that contains the computation of the network, and prints how it compares with PyTorch."""
    from spine.exporting.accuracy import measure_accuracy  # imports torch
    from spine.exporting.graph_export import export_graph
    from spine.exporting.model import sample_source
    from spine.prediction.loading import open_predictor
    from spine.training.trainer import silence_libraries

    silence_libraries()
    predictor = open_predictor(config, classes, "cpu", "32-true")
    source = sample_source(config, predictor)
    if source.data is None and options.precision == "int8":
        raise InputError("precision=int8 needs the data set, for its calibration and its accuracy. Give dataset.root=<folder>.")

    def inspect(path: Path) -> dict[str, float]:
        accuracy = measure_accuracy(config, predictor, path)
        log.info("%s: %.4f with PyTorch in float32, %.4f with the file", accuracy.metric, accuracy.pytorch, accuracy.file)
        if options.precision == "int8":
            accuracy.check(options.allowed_difference)
        return {f"{accuracy.metric} of PyTorch": accuracy.pytorch, accuracy.metric: accuracy.file}

    measured = options.precision != "fp32" and source.data is not None
    exported = export_graph(source, options, inspect if measured else None)
    report(exported, options, source.name("val"))


def report(exported: Exported, options: ExportOptions, images: str) -> None:
    """Prints what was written, how far it is from PyTorch, its size and its latency. `images`: their origin."""
    import torch

    facts = exported.facts
    sizes = "any size" if facts.size_multiple == 1 else f"sides that are multiples of {facts.size_multiple} pixels"
    if facts.image_size is not None:
        sizes = f"{facts.image_size[0]}x{facts.image_size[1]} pixels" + (f" ({exported.reason})" if exported.reason else "")
    allowed = "" if options.precision == "int8" else f"; allowed: {options.allowed_difference:g}"
    size = f"{exported.megabytes:.1f} MB (weights in float32: {4e-6 * exported.parameters:.1f} MB)"
    log.info("%s: %s, %s, %s", exported.files[0], facts.model.summary, facts.precision, size)
    log.info("images: %s, batches of %s", sizes, facts.batch_size or "any size")
    log.info("largest difference from PyTorch: %s %s%s", exported.difference, images, allowed)
    if exported.latency is not None:
        log.info("one image: %s, median, CPU with %d threads", exported.latency, torch.get_num_threads())
    log.info("description: %s", exported.files[-1])


def export_weights(config: Config, options: ExportOptions, classes: Classes) -> None:
    """Writes the weights under the names of a publisher, or spine's own."""
    from spine.exporting import weight_files  # imports torch
    from spine.exporting.model import load_network

    network = load_network(config, classes)
    height, width = network.definition.image_size or network.config["image_size"]
    inputs = weight_files.example_inputs(network.model, (height, width))
    exported = weight_files.export_weights(
        network.definition, network.model, metadata(network.config, network.labels), inputs, options
    )
    log.info("%s: %s under the names of %s", exported.files[0], network.definition.summary, options.format)
    log.info("largest difference of a network with the weights of the file: %s", exported.difference)
    for key, (other, own) in exported.differing.items():
        log.info(
            "%s's network has %s %s by default. Build it with %s, the value of this network.", options.format, key, other, own
        )
    log.info("description: %s", exported.files[-1])


def metadata(config: Config, labels: Labels | None) -> dict[str, str]:
    """Returns what a safetensors file carries next to the tensors, as text."""
    written = {
        "spine": version("spine"),
        "image_size": json.dumps(config["image_size"]),
        **{key: json.dumps(config["dataset"][key]) for key in ("mean", "std")},
        "channels": str(config["dataset"].get("channels") or "rgb"),
    }
    if labels is not None:
        written["labels"] = json.dumps({key: value for key, value in dataclasses.asdict(labels).items() if value})
    return written
