"""Writes ONNX files with PyTorch's exporter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from spine.errors import InputError
from spine.exporting.tracing import Traced, quiet
from spine.prediction.exported_file import FileFacts
from spine.prediction.onnx_backend import INSTALL, open_session

PATCHES = {"height": "rows", "width": "columns"}  # names of the numbers of which the sides of an image are multiples


def check_packages() -> None:
    """Raises InputError if the packages of the extra `export` are not installed."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ModuleNotFoundError as error:
            raise InputError(f"format=onnx needs the package {name}, which is not installed: {INSTALL}") from error


def write_onnx(traced: Traced, inputs: Sequence[Tensor], facts: FileFacts, path: Path, opset: int | None) -> None:
    """Writes a graph to an ONNX file, with the names in `facts`. Weights of more than 2 GB are in a second file, `<name>.data`.

    opset: None for PyTorch's default. Raises InputError if an operation of the network has no counterpart in ONNX.
    """
    with quiet():
        try:
            program = torch.onnx.export(
                traced.program,
                tuple(inputs),
                input_names=[each.name for each in facts.inputs],
                output_names=[each.name for each in facts.outputs],
                opset_version=opset,
                dynamo=True,
                verbose=False,
                optimize=True,
            )
        except Exception as error:  # torch.onnx raises many types
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise InputError(f"PyTorch cannot write this network as ONNX: {reason}") from error
    assert program is not None
    shape = program.model.graph.inputs[0].shape
    program.rename_axes(dict(filter(None, map(_axis_name, map(str, shape or ()), facts.inputs[0].shape))))
    program.save(path)


def _axis_name(size: str, name: str | int) -> tuple[str, str] | None:
    """Returns the symbol in a size of the graph, such as `s40` or `16*s73`, and its new name. None for a size that is fixed."""
    symbol = re.search(r"\bs\d+\b", size)
    if symbol is None:
        return None
    return symbol[0], str(name) if symbol[0] == size else PATCHES[str(name)]


def add_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Adds texts to the metadata of an ONNX file. External weights stay where they are."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


class OnnxFile:
    """An ONNX file, opened again in ONNX Runtime."""

    def __init__(self, path: Path):
        self.session = open_session(path, "cpu")
        self.names = [each.name for each in self.session.get_inputs()]

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns the outputs for the inputs of the file."""
        arrays = {name: x.contiguous().numpy() for name, x in zip(self.names, inputs, strict=True)}
        return tuple(torch.from_numpy(array) for array in self.session.run(None, arrays))
