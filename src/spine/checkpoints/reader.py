"""Reads weight files and detects their layout. Nothing in a file is executed."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from spine.checkpoints.input_settings import InputSettings, settings_of_config
from spine.checkpoints.mapping import BATCH_COUNTER, SPINE_LAYOUT, Layout, State
from spine.checkpoints.tensorflow_bundle import INDEX_SUFFIX, read_bundle
from spine.errors import InputError, nearest

# Keys under which files store the state dict, averaged weights first.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state", "module")
# Prefixes that are removed if all names have them.
PREFIXES = ("module.", "model.", "backbone.", "encoder.", "_orig_mod.", "opt.target.", "params.")
LOSS = "loss."  # prefix of the weights of classes in a loss, which the authors of HRNet store beside the network
SUFFIXES = "pth, pt, bin, ckpt, safetensors, npz or index"
MIN_MATCH_FRACTION = 0.5  # fraction of the names that a layout must match


class WeightFile(NamedTuple):
    """The content of a weight file."""

    path: str
    layout: Layout  # detected from the names
    tensors: State  # with spine's names
    unmatched: list[str]  # names of the file that no rule of the layout matches
    names: frozenset[str]  # all names of the file
    config: Mapping[str, object] = {}  # configuration of the run, if spine wrote the file

    @property
    def input_settings(self) -> InputSettings:
        """The images that the weights are for: from the configuration in the file, else from its layout.

        If neither knows the image size, it is derived from the position embedding and the patch size.
        """
        settings = settings_of_config(self.config).over(self.layout.input_settings)
        positions, kernel = (self.tensors.get(f"backbone.{name}") for name in ("pos_embed", "patch_embed.proj.weight"))
        hybrid = any(name.startswith("backbone.patch_embed.backbone.") for name in self.tensors)
        if settings.image_size or positions is None or kernel is None or hybrid or positions.ndim != 3 or kernel.ndim != 4:
            return settings
        side = math.isqrt(positions.shape[1] - 1)  # one position is that of the class token
        if side * side + 1 != positions.shape[1]:
            return settings
        return replace(settings, image_size=(side * kernel.shape[2], side * kernel.shape[3]))


_last_file: dict[tuple[object, ...], WeightFile] = {}  # at most one file, kept until its weights are loaded


def read_weight_file(path: str | Path, layouts: Iterable[Layout], layout: str | None = None) -> WeightFile:
    """Reads a weight file and detects which of `layouts` it has, by the names of its tensors.

    The layout that matches most names is taken; `layout` restricts the choice to one publisher. The
    last file stays in memory until `loading.load` has loaded it into a network, so that checking a
    file before building the network does not read it twice. A file that has changed on disk is read
    again. Raises InputError if the file cannot be read or if no layout matches half of its names.
    """
    layouts = tuple(layouts)
    status = Path(path).stat() if Path(path).is_file() else None
    key = (str(path), layout, tuple(map(id, layouts)), *((status.st_mtime_ns, status.st_size, status.st_ino) if status else ()))
    if key not in _last_file:
        forget_last_file()
        _last_file[key] = _read_weight_file(path, layouts, layout)
    return _last_file[key]


def forget_last_file() -> None:
    """Frees the memory of the file that was read last."""
    _last_file.clear()


def read(path: str | Path) -> State:
    """Returns the named tensors of a file. Raises InputError if it is not a complete file of plain tensors."""
    return _read(Path(path))[0]


def _read_weight_file(path: str | Path, layouts: Iterable[Layout], publisher: str | None) -> WeightFile:
    tensors, config = _read(Path(path))
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(BATCH_COUNTER) and not name.startswith(LOSS)}
    layout, names = _detect_layout(path, list(tensors), (*layouts, SPINE_LAYOUT), publisher)
    converted, unmatched = layout.to_spine({name: tensors[original] for name, original in names.items()})
    return WeightFile(str(path), layout, converted, unmatched, frozenset(tensors), config)


def _detect_layout(
    path: str | Path, original_names: list[str], layouts: tuple[Layout, ...], publisher: str | None
) -> tuple[Layout, dict[str, str]]:
    """The layout that matches most names of a file, and its names without prefixes -> its original names."""
    candidates = [layout for layout in layouts if publisher in (None, layout.publisher)]
    if not candidates:
        publishers = sorted({layout.publisher for layout in layouts})
        raise InputError(f"Unknown layout '{publisher}'.{nearest(publisher or '', publishers)} Choices: {', '.join(publishers)}.")
    variants = _name_variants(original_names)
    matches = [
        (layout.match_fraction(names), layout, names)
        for names in variants
        for layout in candidates
        if layout is not SPINE_LAYOUT or names is not variants[-1]  # with the prefix `backbone.`, it would match every name
    ]
    fraction, best, names = max(matches, key=lambda match: match[0])  # the first of equals
    if fraction < MIN_MATCH_FRACTION:
        unmatched = [name for name in original_names if best.match_fraction([name]) == 0] or original_names
        raise InputError(
            f"'{path}' holds {len(original_names)} tensors; the closest layout ({best.publisher}) matches {fraction:.0%} of their "
            f"names. First unmatched names: {', '.join(unmatched[:3])}. Is it a file of another backbone?"
        )
    return best, names


def _name_variants(original_names: list[str]) -> list[dict[str, str]]:
    """Name -> original name: unchanged, without each prefix that all names share, and with the prefix `backbone.`."""
    names = {name: name for name in original_names}
    variants = [names]
    while prefix := next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in names)), None):
        names = {name.removeprefix(prefix): original for name, original in names.items()}
        variants.append(names)
    return [*variants, {f"backbone.{name}": original for name, original in names.items()}]


def _read(path: Path) -> tuple[State, Mapping[str, object]]:
    """The tensors of a file, and the configuration that spine's checkpoints and exports carry (else empty)."""
    if not path.is_file():
        raise InputError(f"There is no weights file '{path}'. Give the path of a {SUFFIXES} file.")
    if path.suffix.startswith(".data-"):
        index = path.with_suffix(INDEX_SUFFIX)
        raise InputError(f"'{path}' holds the data of a TensorFlow checkpoint. Give the path of its index, '{index}'.")
    try:
        content = _open(path)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"'{path}' is not a plain weights file. Nothing in it was executed ({reason}).") from error
    except Exception as error:
        raise InputError(f"'{path}' cannot be read as weights; it may be truncated or damaged ({error}).") from error
    config = content.get("config") if isinstance(content, dict) else None
    content = _unwrap(content)
    tensors = {}
    if isinstance(content, dict):
        tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if isinstance(config, dict) and any(name.startswith("model.") for name in tensors):
        # a task of spine may have tensors beside the network, such as the classifiers of a linear probe
        tensors = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    if not tensors:
        raise InputError(f"'{path}' holds no named tensors; expected a state dict, bare or under {', '.join(WRAPPERS)}.")
    _check_tensors(path, tensors)
    return tensors, config if isinstance(config, dict) else _metadata(path)


def _unwrap(content: object) -> object:
    """The state dict in the content of a file. Up to three wrappers inside each other are removed."""
    for _ in range(3):
        for wrapper in WRAPPERS:
            if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
                content = content[wrapper]
                break
    return content


def _check_tensors(path: Path, tensors: State) -> None:
    """Raises InputError if a tensor is quantized, sparse or not finite."""
    for name, tensor in tensors.items():
        if tensor.is_quantized or tensor.layout != torch.strided:
            raise InputError(f"'{path}' holds '{name}' as a quantized or sparse tensor; plain tensors are expected.")
        if tensor.is_floating_point() and not (tensor.float() if tensor.element_size() < 4 else tensor).isfinite().all():
            raise InputError(
                f"'{path}' holds values that are not finite, first in '{name}'; the file is damaged or its training diverged."
            )


def _open(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if path.suffix == ".npz":
        import numpy as np

        with np.load(path, allow_pickle=False) as arrays:
            return {name.replace("/", "."): torch.from_numpy(arrays[name]) for name in arrays.files}
    if path.suffix == INDEX_SUFFIX:
        return {name.replace("/", "."): tensor for name, tensor in read_bundle(path).items()}
    verify_checksums(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def verify_checksums(path: Path) -> None:
    """Raises ValueError if a part of a zip archive, such as a file of torch.save, has a wrong checksum. torch does not verify them."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"wrong checksum of '{damaged}' in it")


def _metadata(path: Path) -> dict[str, object]:
    """The metadata of a safetensors file that spine wrote (else empty). Values are parsed as JSON if possible."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata: dict[str, object] = dict(file.metadata() or {})
    for key, value in metadata.items():
        with contextlib.suppress(ValueError):
            metadata[key] = json.loads(str(value))
    return metadata if "spine" in metadata else {}
