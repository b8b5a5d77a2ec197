"""Exports weights without the computation, under the tensor names of a publisher or of spine."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from spine.checkpoints import writer
from spine.checkpoints.formats import layouts_of
from spine.checkpoints.mapping import SPINE_LAYOUT, Layout
from spine.checkpoints.tokenizer_files import load_tokenizer
from spine.components import backbone_builder, defaults
from spine.errors import InputError
from spine.exporting.checking import Difference, Inputs, compare, run_pytorch
from spine.exporting.graph_export import staged
from spine.exporting.options import GRAPHS, ExportOptions
from spine.models.assembly import NetworkConfig, resolve_backbone_options, resolve_head_options
from spine.models.pretrained import load_weights, resolve_weights
from spine.network_definition import NetworkDefinition

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportedWeights:
    """A weight file that was written and read again.

    differing: options whose default in the publisher's network is another: that default, and the value of this network.
    """

    files: tuple[Path, ...]
    difference: Difference
    differing: dict[str, tuple[object, object]]


def export_weights(
    definition: NetworkDefinition, model: nn.Module, metadata: Mapping[str, str], inputs: Inputs, options: ExportOptions
) -> ExportedWeights:
    """Writes the weights of a network with the tensor names of `options.format`, and a JSON with `metadata` beside them.

    The file is read again, and the output of a network with its weights is compared with that of `model` for `inputs`. The file gets
    to its place only if they agree. Raises InputError if the publisher has no such network, or if the outputs differ.
    """
    publisher, out = options.format, options.out
    with staged(out) as folder:
        path = folder / out.name
        differing: dict[str, tuple[object, object]] = {}
        if isinstance(definition, NetworkConfig):
            layout, differing = find_layout(definition, model, publisher)
            metadata = {**metadata, "backbone": definition.backbone, "variant": definition.variant}
            writer.write(model.state_dict(), layout, path, metadata)
            again = read_again(definition, layout, path)
        else:  # the files of other publishers are for backbones
            writer.write_own_names(model.state_dict(), publisher, path, metadata)
            again = load_tokenizer(path)
        for each in (model, again):  # the layout in memory decides which kernels compute, and so the last digits
            each.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        difference = compare(run_pytorch(model), run_pytorch(again), [(inputs, inputs)])
        if difference.relative > options.allowed_difference:
            raise InputError(
                f"A network with the weights of the file has other outputs: they differ by {difference}. No file was kept."
            )
        described = path.with_name(f"{path.name}.json")
        described.write_text(json.dumps({key: _parsed(text) for key, text in metadata.items()} | {"format": publisher}, indent=2))
        files = tuple(each.replace(out.with_name(each.name)) for each in (path, described))
    return ExportedWeights(files, difference, differing)


def find_layout(network: NetworkConfig, model: nn.Module, publisher: str) -> tuple[Layout, dict[str, tuple[object, object]]]:
    """Returns the layout in which a publisher stores a network, and the options that its own network has by default.

    Raises InputError if there is none.
    """
    standard = defaults(backbone_builder(network.backbone))
    options = {**standard, **resolve_backbone_options(network)}
    layouts = (*layouts_of(network.backbone), SPINE_LAYOUT)
    layout = writer.layout_for(model.state_dict(), layouts, publisher, options, standard, tuple(GRAPHS))
    differing = {} if layout is SPINE_LAYOUT else writer.differing_options(layout, layouts, options, standard)
    return layout, {key: (other, options[key]) for key, other in differing.items()}


def read_again(network: NetworkConfig, layout: Layout, path: Path) -> nn.Module:
    """Returns a network with the weights of a file, and the options of `network` where the publisher has others by default.

    Raises InputError if tensors are missing or left over.
    """
    standard = defaults(backbone_builder(network.backbone))
    own = {**{name: standard[name] for name in layout.options}, **resolve_backbone_options(network), "variant": network.variant}
    named = network.with_options(own, resolve_head_options(network))
    auxiliary = network.auxiliary_head
    resolved = resolve_weights(named, path, None if layout is SPINE_LAYOUT else layout.publisher)
    resolved = replace(resolved, network=replace(resolved.network, auxiliary_head=auxiliary))
    again = resolved.network.build()
    report = load_weights(again, resolved)
    if report.new or report.unused:
        names = ", ".join([*report.new, *report.unused][:3])
        raise InputError(f"The file does not have the tensors of the network when it is read again: {names}. No file was kept.")
    return again


def example_inputs(model: nn.Module, size: tuple[int, int], channels: int = 3) -> Inputs:
    """Returns two images of noise, with masks for masked networks, for the comparison of weights."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, channels, *size, generator=generator)
    grid: tuple[int, int] | None = getattr(model, "grid", None)
    if grid is None:
        return (image,)
    mask: Tensor = torch.arange(grid[0] * grid[1]).expand(2, -1) % 4 > 0
    return image, mask.contiguous()


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
