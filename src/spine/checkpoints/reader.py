"""Reads and writes weight files, and detects whose layout a file has."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spine.checkpoints.mapping import COUNTER, SPINE_LAYOUT, Layout, State
from spine.errors import InputError, nearest

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state", "module")  # averaged weights first


PREFIXES = ("module.", "model.", "backbone.", "encoder.", "_orig_mod.", "opt.target.", "params.")


SUFFIXES = "pth, pt, bin, ckpt, safetensors or npz"


def read(path: str | Path) -> State:
    """The tensors of a file, unwrapped. Nothing in it is run; InputError where it is not a whole file of plain tensors."""
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[State, dict[str, Any]]:
    """The tensors of a file, and the configuration beside them: of our checkpoints, and of our exports as far as it goes."""
    if not path.is_file():
        raise InputError(f"There is no weights file '{path}'. Give the path of a {SUFFIXES} file.")
    try:
        content = _open(path)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"'{path}' is not a plain weights file, and nothing in it was run ({reason}).") from error
    except Exception as error:
        raise InputError(f"'{path}' cannot be read as weights; it may be truncated or damaged ({error}).") from error
    config = content.get("config") if isinstance(content, dict) else None
    for _ in range(3):  # a wrapper in a wrapper
        for wrapper in WRAPPERS:
            if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
                content = content[wrapper]
                break
    tensors = {}
    if isinstance(content, dict):
        tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"'{path}' holds no tensors by name; a state dict is expected, bare or under {', '.join(WRAPPERS)}.")
    for key, value in tensors.items():
        if value.is_quantized or value.layout != torch.strided:
            raise InputError(f"'{path}' holds '{key}' quantised or sparse; plain tensors are expected.")
        if value.is_floating_point() and not (value.float() if value.element_size() < 4 else value).isfinite().all():
            raise InputError(
                f"'{path}' holds numbers that are not finite, first in '{key}'; the file is damaged or its training diverged."
            )
    return tensors, config if isinstance(config, dict) else _metadata(path)


def _metadata(path: Path) -> dict[str, Any]:
    """What `write` put beside the tensors of a safetensors file; values that are JSON are read as such."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        found: dict[str, Any] = dict(file.metadata() or {})
    for key, value in found.items():
        with contextlib.suppress(ValueError):
            found[key] = json.loads(value)
    return found if "spine" in found else {}


def _open(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if path.suffix == ".npz":
        import numpy as np

        with np.load(path, allow_pickle=False) as arrays:
            return {key.replace("/", "."): torch.from_numpy(arrays[key]) for key in arrays.files}
    if zipfile.is_zipfile(path):  # torch does not look at the checksums
        with zipfile.ZipFile(path) as archive:
            if bad := archive.testzip():
                raise ValueError(f"the checksum of '{bad}' in it does not hold")
    return torch.load(path, map_location="cpu", weights_only=True)


class WeightFile(NamedTuple):
    """A file as it was understood."""

    path: str
    layout: Layout
    tensors: State  # under our names
    unknown: list[str]  # names that the layout does not know
    names: frozenset[str]  # as the file has them
    config: Mapping[str, Any] = {}  # of the run that made it, where the file is ours


_last: dict[tuple, WeightFile] = {}  # the file that was read last, until it is loaded


def read_weight_file(path: str | Path, layouts: Iterable[Layout], layout: str | None = None) -> WeightFile:
    """Reads a file and recognizes its layout by its names: the one that knows most of them, or the one called `layout`.

    The last file is kept until `load` has put it into a network, so that whoever checks it first does not read it twice. A file that has
    changed on disk is read anew.
    """
    layouts = tuple(layouts)
    status = Path(path).stat() if Path(path).is_file() else None
    key = (str(path), layout, tuple(map(id, layouts)), *((status.st_mtime_ns, status.st_size, status.st_ino) if status else ()))
    if key not in _last:
        release()
        _last[key] = _read_weight_file(path, layouts, layout)
    return _last[key]


def release() -> None:
    """Forgets the file that was read last."""
    _last.clear()


def _read_weight_file(path: str | Path, layouts: Iterable[Layout], layout: str | None) -> WeightFile:
    tensors, config = _read(Path(path))
    found = {key: value for key, value in tensors.items() if not key.endswith(COUNTER)}
    every = (*layouts, SPINE_LAYOUT)
    choices = [candidate for candidate in every if layout in (None, candidate.publisher)]
    if not choices:
        publishers = sorted({candidate.publisher for candidate in every})
        raise InputError(f"Unknown layout '{layout}'.{nearest(layout or '', publishers)} Choices: {', '.join(publishers)}.")
    spellings = _spellings(found)
    shares = [
        (candidate.match_fraction(names), candidate, names)
        for names in spellings
        for candidate in choices
        if candidate is not SPINE_LAYOUT or names is not spellings[-1]  # behind that prefix every name would be one of ours
    ]
    share, best, names = max(shares, key=lambda item: item[0])  # the first of equals
    if share < 0.5:
        strange = [name for name in found if best.match_fraction([name]) == 0] or list(found)
        raise InputError(
            f"'{path}' holds {len(found)} tensors, and the layout that knows most of their names, {best.publisher}'s, knows "
            f"{share:.0%} of them. First strange ones: {', '.join(strange[:3])}. Is it a file of another backbone?"
        )
    tensors, unknown = best.to_ours({name: found[original] for name, original in names.items()})
    return WeightFile(str(path), best, tensors, unknown, frozenset(found), config)


def _spellings(found: State) -> list[dict[str, str]]:
    """Name -> name in the file: as they are, without the prefixes that all share, and as those of a backbone."""
    names = {key: key for key in found}
    spellings = [names]
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None):
        names = {name.removeprefix(prefix): key for name, key in names.items()}
        spellings.append(names)
    return [*spellings, {f"backbone.{name}": key for name, key in names.items()}]


def write(state: State, layout: Layout, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a network's weights under a publisher's names: safetensors, or a torch file.

    `metadata`: text by key that a safetensors file carries beside its tensors; torch files have no place for it. The file appears
    whole or not at all, with the permissions that any new file gets. InputError where the suffix is unknown or it cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pth", ".pt", ".bin"):
        raise InputError(f"'{path}' ends in '{path.suffix}'; weights are written to pth, pt, bin or safetensors files.")
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in layout.to_theirs(state).items()}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode
        if path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(tensors, part, metadata={"format": "pt", **(metadata or {})})
            part.chmod(mode)  # safetensors makes files that nobody else can read
        else:
            torch.save({layout.wrapper: tensors} if layout.wrapper else tensors, part)
        part.replace(path)
    except OSError as error:
        raise InputError(f"'{path}' cannot be written ({error.strerror or error}).") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
