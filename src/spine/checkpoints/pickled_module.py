"""Reads the tensors of a pickled network, such as DALL-E's encoder.pkl and decoder.pkl, without running anything in the file."""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from spine.checkpoints.reader import verify_checksums
from spine.errors import InputError

# What a file may create. Everything else is refused, or replaced by an empty record if its name is listed by the caller.
HARMLESS = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "device"): torch.device,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


class RefusedClass(pickle.UnpicklingError):
    """A file contains an object of a class that it may not contain."""


class Record:
    """Takes the place of an object of a class that is not imported. It has the attributes of the object and no methods."""

    dump_patches = False  # torch reads it when it compares source code

    def __new__(cls, *args: object) -> Record:
        """Ignores the arguments."""
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        """Ignores the arguments."""


def read_pickled_module(path: str | Path, records: Iterable[str]) -> dict[str, Tensor]:
    """Returns the state dict of a network that was saved whole, with torch.save(network).

    `records`: full names of the classes of its modules, which become empty records. Raises InputError if the file contains
    anything else but tensors and plain containers, or if it is damaged.
    """

    restricted = _restricted_pickle(frozenset(records))
    try:
        verify_checksums(Path(path))
        # weights_only cannot replace classes by records; the unpickler above is as strict
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the oldest files hold the source code of their classes, which torch compares
            network = torch.load(path, map_location="cpu", pickle_module=restricted, weights_only=False)
    except RefusedClass as error:
        raise InputError(f"'{path}' is not opened: {error}. Nothing in it was run.") from error
    except Exception as error:
        raise InputError(f"'{path}' cannot be read; it may be truncated or damaged ({error}).") from error
    if not isinstance(network, Record):
        raise InputError(f"'{path}' does not hold a network.")
    return {name: tensor.detach() for name, tensor in _tensors(network, "")}


def _restricted_pickle(records: frozenset[str]) -> ModuleType:
    """Returns what torch.load uses of the module `pickle`, with an unpickler that looks up allowed names only."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            if f"{module}.{name}" in records:
                return Record
            if (module, name) in HARMLESS:
                return HARMLESS[module, name]
            raise RefusedClass(f"it contains {module}.{name}, which is not part of a published network")

    def load(file: BinaryIO, **options: Any) -> object:
        return Unpickler(file, **options).load()

    module = ModuleType("restricted_pickle")
    module.__dict__.update(Unpickler=Unpickler, load=load, UnpicklingError=pickle.UnpicklingError)
    return module


def _tensors(module: Record, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yields names and values of the parameters and buffers of a module and its children."""
    for kind in ("_parameters", "_buffers"):
        for name, tensor in vars(module).get(kind, {}).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor
    for name, child in vars(module).get("_modules", {}).items():
        if isinstance(child, Record):
            yield from _tensors(child, f"{prefix}{name}.")
