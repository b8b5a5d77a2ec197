"""Weight files for a network: reads a file, completes the options of the network, and loads the tensors."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from spine.checkpoints import loading, reader
from spine.checkpoints.adaptation import PATCH_KERNEL
from spine.checkpoints.download import fetch
from spine.checkpoints.formats import layouts_of
from spine.checkpoints.input_settings import InputSettings
from spine.checkpoints.published import weight_table_of
from spine.checkpoints.weight_table import published, row_of_file
from spine.components import backbone_module, default_variant, head_class
from spine.errors import InputError
from spine.models.assembly import NetworkConfig
from spine.models.masked import MaskedModel
from spine.models.network import Model
from spine.network_definition import NetworkDefinition
from spine.option_types import Config, Options


@dataclass(frozen=True)
class PretrainedFile:
    """A weight file for a backbone, with what is known about it before a network is built.

    `options`: of the backbone's builder: the conventions of the file's layout and the options that were given. `input_settings`: of
    the images that it was evaluated on, as far as the weight table and the file tell.
    """

    file: reader.WeightFile
    options: dict[str, object]
    input_settings: InputSettings


@dataclass(frozen=True)
class ResolvedWeights:
    """A weight file and the network that it is for, with all options that the file determines."""

    file: reader.WeightFile
    network: NetworkConfig


def read_weights(backbone: str, path: str | Path, options: Options, layout: str | None = None) -> PretrainedFile:
    """Reads a weight file: `path` is a file, or a name in the backbone's weight table, whose file is downloaded.

    `options` are of the backbone's builder; those that are given win over the conventions of the file's layout. Raises InputError if
    the file or the name does not exist, or if the file cannot be read.
    """
    table, row = weight_table_of(backbone), None
    options = dict(options)
    if not Path(path).is_file() and not Path(path).suffix:
        variant = str(options.get("variant") or default_variant(backbone))
        options["variant"] = variant
        row = published(str(path), table, variant)
        path = fetch(row.address, row.sha256)
    else:
        row = row_of_file(Path(path), table)
    file = reader.read_weight_file(path, layouts_of(backbone), layout or (row.layout if row else None))
    given = {key: value for key, value in options.items() if value is not None}
    return PretrainedFile(file, {**file.layout.options, **given}, (row or file).input_settings)


def resolve_weights(network: NetworkConfig, path: str | Path, layout: str | None = None) -> ResolvedWeights:
    """Reads a weight file and completes the options of a network: the conventions of the file, and the variant if none is named.

    What the caller names stays. Raises InputError as `read_weights` does.
    """
    pretrained = read_weights(network.backbone, path, network.backbone_options, layout)
    given = {key: value for key, value in network.head_options.items() if value is not None}
    network = network.with_options(pretrained.options, {**_head_options_of(pretrained.file, network.head), **given})
    network = replace(network, auxiliary_head=_auxiliary_head_of(pretrained.file, network.auxiliary_head))
    if "variant" not in network.backbone_options:
        variant, _ = find_variant(network, pretrained.file)
        network = replace(network, backbone_options={**network.backbone_options, "variant": variant})
    return ResolvedWeights(pretrained.file, network)


def configured_weights(config: Config, network: NetworkDefinition) -> ResolvedWeights | None:
    """The weight file that `backbone.weights` of a plain configuration names, for its network. None without one."""
    node = config.get("backbone") or {}
    if node.get("weights") is None:
        return None
    assert isinstance(network, NetworkConfig)
    return resolve_weights(network, node["weights"], node.get("layout"))


def _head_options_of(file: reader.WeightFile, head: str) -> dict[str, object]:
    """Options of the head that a file determines: conventions of its layout, or the options that our own checkpoint was built with."""
    parameters = set(inspect.signature(head_class(head).__init__).parameters)
    conventions = file.layout.head_options
    found = dict(conventions(file.tensors) if callable(conventions) else conventions)
    node = file.config.get("head")
    if isinstance(node, dict) and str(node.get("_target_", "")).startswith(f"{head_class(head).__module__}."):
        kept = parameters - {"dropout"}  # belongs to the training, not to the network
        found |= {key: value for key, value in node.items() if key in kept and value is not None}
    return found if set(found) <= {*parameters, "levels"} else {}  # the layout describes another head


def _auxiliary_head_of(file: reader.WeightFile, given: Options | None) -> Options | None:
    """Options of the auxiliary head, an FCN, of a file of a whole segmentation network.

    `given`: options of the caller, which win. If there are none and the file has a head but no auxiliary
    head, its weight is 0. Returns `given` for all other files.
    """
    classifier = file.tensors.get("auxiliary_head.classifier.weight")
    if classifier is None:
        return {"weight": 0.0} if given is None and "head.classifier.weight" in file.tensors else given
    layers = {name.split(".")[2] for name in file.tensors if name.startswith("auxiliary_head.convs.")}
    own = {key: value for key, value in (given or {}).items() if value is not None}
    concat_input = "auxiliary_head.concat.0.weight" in file.tensors
    return {"channels": classifier.shape[1], "num_convs": len(layers), "concat_input": concat_input, **own}


def find_variant(network: NetworkConfig, file: reader.WeightFile) -> tuple[str, float]:
    """The variant that a file fits best, and its coverage. Each variant is built on the meta device."""
    fits: dict[str, tuple[float, bool, int]] = {}
    refused = InputError("")
    for variant in backbone_module(network.backbone).VARIANTS:
        try:
            with torch.device("meta"):
                net = replace(network, backbone_options={**network.backbone_options, "variant": variant}).build()
        except InputError as error:  # for example a patch size of 14 and an image size that is a multiple of 16
            refused = error
            continue
        report, _ = loading.compare(net, file)
        # bias tables that fit without resizing distinguish Swin's window sizes
        fits[variant] = (report.coverage, PATCH_KERNEL not in report.resized, -len(report.unused) - len(report.resized))
        if fits[variant] == (1.0, True, 0):  # no other variant can fit better
            break
    if not fits:
        raise refused
    best = max(fits, key=lambda variant: fits[variant])
    return best, fits[best][0]


def load_weights(model: nn.Module, weights: ResolvedWeights) -> loading.LoadReport:
    """Loads a weight file into the network that was built from `weights.network`, and reports what was loaded.

    On the meta device the names and shapes are only compared. Raises InputError if the file does not fit; the message names the
    variant that the file is for.
    """
    network, file = weights.network, weights.file
    assert isinstance(model, Model | MaskedModel)

    def other_variant() -> str | None:
        variant, coverage = find_variant(network, file)
        fits = variant != network.variant and coverage >= loading.MIN_COVERAGE
        return f"{network.backbone} {variant}" if fits else None

    return loading.load(model, file, f"{network.backbone} {network.variant}", other_variant)
