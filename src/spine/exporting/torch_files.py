"""Writes and opens files of torch.export and of TorchScript."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from spine.errors import InputError
from spine.exporting.network import ExportedNetwork
from spine.exporting.tracing import Traced, quiet

EXTRA_FILE = "spine.json"  # of the description, inside the file


def write_torch_export(traced: Traced, path: Path, description: str) -> None:
    """Writes a graph of torch.export. `description`: JSON, stored in the file as `spine.json`."""
    with quiet():
        torch.export.save(traced.program, path, extra_files={EXTRA_FILE: description})


def write_torchscript(network: ExportedNetwork, inputs: Sequence[Tensor], path: Path, description: str) -> None:
    """Records the operations of a network for an example, and writes them as TorchScript.

    Raises InputError if the network cannot be recorded.
    """
    with quiet(), torch.no_grad():
        try:
            script = torch.jit.trace(network, tuple(inputs), check_trace=False)
        except Exception as error:  # torch.jit raises many types
            raise InputError(f"torch.jit.trace cannot record this network: {str(error).strip().splitlines()[0]}") from error
        torch.jit.save(script, str(path), _extra_files={EXTRA_FILE: description})


class TorchExportFile:
    """A file of torch.export, opened again."""

    def __init__(self, path: Path):
        with quiet():
            self.module = torch.export.load(path).module()

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns the outputs for the inputs of the file."""
        with torch.no_grad():
            return tuple(self.module(*inputs))


class TorchScriptFile:
    """A TorchScript file, opened again."""

    def __init__(self, path: Path):
        with quiet():
            self.module = torch.jit.load(str(path), map_location="cpu")

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns the outputs for the inputs of the file."""
        with torch.no_grad(), quiet():
            return tuple(self.module(*inputs))
