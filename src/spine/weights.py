"""Reads weight files and loads them strictly: what did not fit is said, and nothing is left random without a word."""

from __future__ import annotations

import math
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spine.blocks.positions import resize_positions, resize_relative_positions
from spine.errors import InputError

Layout = list[tuple[str, str]]  # (pattern, replacement) rows, from a publisher's names to ours
WRAPPERS = ("state_dict", "model", "model_state")
PREFIXES = ("module.", "model.")
POSITIONS = ("pos_embed", "relative_position_bias_table")  # tables that follow the image size or the window


@dataclass
class Report:
    """What became of a file's tensors and of the network's."""

    path: str
    matched: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)  # parts of the network that the file does not hold
    unused: list[str] = field(default_factory=list)  # parts of the file that the network does not have

    def __str__(self) -> str:
        lines = [f"Weights from {self.path}: {len(self.matched)} tensors matched"]
        for name in ("resized", "new", "unused"):
            keys = getattr(self, name)
            if keys:
                lines.append(f"  {len(keys)} {name}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}")
        return "\n".join(lines)


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file (safetensors, or a torch file read with weights_only). ValueError where it is not such a file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no weights file '{path}'. Give the path of a pth, pt, bin, ckpt or safetensors file.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"'{path}' is not a plain weights file, and nothing in it was run ({reason}).") from error
    except Exception as error:
        raise InputError(f"'{path}' cannot be read as weights; it may be truncated ({error}).") from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise InputError(f"'{path}' holds no tensors by name; a state dict is expected, bare or under {', '.join(WRAPPERS)}.")
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def rename(key: str, layout: Layout) -> str:
    """Our name for a publisher's; names that no row knows stay."""
    for pattern, replacement in layout:
        if re.search(pattern, key):
            return re.sub(pattern, replacement, key)
    return key


def load(model: nn.Module, path: str | Path, layout: Layout) -> Report:
    """Loads a file into a network with .backbone and .head.

    Every tensor of the backbone, its pooling apart, must be in the file with its own shape; tables of positions and offsets are resized in
    two dimensions. The head and the pooling are loaded where the file has them whole, and are said to be new where not. Raises ValueError.
    """
    found = read(path)
    if not any(key.startswith("backbone.") for key in found):  # else the names are ours
        found = {rename(key, layout): value for key, value in found.items()}
    found = _settle_norm(found, model)
    own = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    report = Report(str(path))
    accepted: dict[str, Tensor] = {}
    misfits: list[str] = []
    for key, tensor in own.items():
        candidate = found.get(key)
        if candidate is not None and candidate.shape != tensor.shape and key.endswith(POSITIONS):
            candidate = _resize(candidate, tensor, model)
            if candidate is not None:
                report.resized.append(key)
        if candidate is not None and candidate.shape == tensor.shape:
            accepted[key] = candidate
            report.matched.append(key)
            continue
        optional = key.startswith(("head.", "backbone.pooling.", "backbone.norms.", "painted_pixel"))
        shape = f" is {tuple(candidate.shape)} in the file" if candidate is not None else " is not in the file"
        (report.new if optional else misfits).append(key if optional else f"{key} {tuple(tensor.shape)}{shape}")
    if misfits:
        raise InputError(
            f"'{path}' does not fit this backbone: {len(misfits)} of its {len(own)} tensors do not match. First: "
            f"{'; '.join(misfits[:3])}. Choose the variant that the file was made for."
        )
    report.unused = [key for key in found if key not in own and not key.endswith("num_batches_tracked")]
    model.load_state_dict({**model.state_dict(), **accepted}, strict=True)
    print(report)
    return report


def _settle_norm(found: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A last norm is of the tokens in a masked network and of pooling elsewhere; it goes where this network has it."""
    own: Any = model.state_dict()
    for a, b in (("backbone.norm.", "backbone.pooling.norm."), ("backbone.pooling.norm.", "backbone.norm.")):
        if f"{a}weight" in own and f"{a}weight" not in found and f"{b}weight" in found:
            return {(a + key.removeprefix(b) if key.startswith(b) else key): value for key, value in found.items()}
    return found


def _resize(table: Tensor, own: Tensor, model: Any) -> Tensor | None:
    """The file's table of positions or offsets at this network's grid; the file's grid is taken for a square one."""
    if table.shape[-1] != own.shape[-1]:
        return None
    if table.ndim == 2:  # offsets: those of a window, or those of all patches and three rows for the class token
        extra = 0 if math.isqrt(len(own)) ** 2 == len(own) else 3
        side = (math.isqrt(len(table) - extra) + 1) // 2
        if (2 * side - 1) ** 2 + extra != len(table):
            return None
        window = (math.isqrt(len(own)) + 1) // 2
        return resize_relative_positions(table, (side, side), model.backbone.spec.grid if extra else (window, window))
    grid = model.backbone.spec.grid
    extra = own.shape[1] - grid[0] * grid[1]
    side = math.isqrt(table.shape[1] - extra)
    return resize_positions(table, (side, side), grid) if side * side + extra == table.shape[1] else None
