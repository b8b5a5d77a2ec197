"""Reads weight files and loads them: what did not fit is said, and nothing is left random without a word.

A file is read without running anything in it, the publisher's layout is recognised by its names, and its tensors are renamed to ours.
Layouts are tables that work both ways, so that a network can be written back in the layout of any publisher.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spine.blocks.conv import PoolNorm
from spine.blocks.positions import resize_positions, resize_relative_positions
from spine.errors import InputError, nearest
from spine.names import COUNTER, OWN, Layout, State

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state", "module")  # averaged weights first
PREFIXES = ("module.", "model.", "backbone.", "encoder.", "_orig_mod.", "opt.target.", "params.")
POSITIONS = ("pos_embed", "relative_position_bias_table")  # tables that follow the image size or the window
FLOOR = 0.95  # share of a backbone's parameters that a file must hold
SUFFIXES = "pth, pt, bin, ckpt, safetensors or npz"


def read(path: str | Path) -> State:
    """The tensors of a file, unwrapped. Nothing in it is run; InputError where it is not a whole file of plain tensors."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no weights file '{path}'. Give the path of a {SUFFIXES} file.")
    try:
        content = _open(path)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"'{path}' is not a plain weights file, and nothing in it was run ({reason}).") from error
    except Exception as error:
        raise InputError(f"'{path}' cannot be read as weights; it may be truncated or damaged ({error}).") from error
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
    return tensors


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


class Source(NamedTuple):
    """A file as it was understood."""

    path: str
    layout: Layout
    tensors: State  # under our names
    unknown: list[str]  # names that the layout does not know
    names: frozenset[str]  # as the file has them


def understand(path: str | Path, layouts: Iterable[Layout], layout: str | None = None) -> Source:
    """Reads a file and recognises its layout by its names: the one that knows most of them, or the one called `layout`."""
    found = {key: value for key, value in read(path).items() if not key.endswith(COUNTER)}
    every = (*layouts, OWN)
    choices = [candidate for candidate in every if layout in (None, candidate.publisher)]
    if not choices:
        publishers = sorted({candidate.publisher for candidate in every})
        raise InputError(f"Unknown layout '{layout}'.{nearest(layout or '', publishers)} Choices: {', '.join(publishers)}.")
    spellings = _spellings(found)
    shares = [
        (candidate.claimed(names), candidate, names)
        for names in spellings
        for candidate in choices
        if candidate is not OWN or names is not spellings[-1]  # behind that prefix every name would be one of ours
    ]
    share, best, names = max(shares, key=lambda item: item[0])  # the first of equals
    if share < 0.5:
        strange = [name for name in found if best.claimed([name]) == 0] or list(found)
        raise InputError(
            f"'{path}' holds {len(found)} tensors, and the layout that knows most of their names, {best.publisher}'s, knows "
            f"{share:.0%} of them. First strange ones: {', '.join(strange[:3])}. Is it a file of another backbone?"
        )
    tensors, unknown = best.to_ours({name: found[original] for name, original in names.items()})
    return Source(str(path), best, tensors, unknown, frozenset(found))


def _spellings(found: State) -> list[dict[str, str]]:
    """Name -> name in the file: as they are, without the prefixes that all share, and as those of a backbone."""
    names = {key: key for key in found}
    spellings = [names]
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None):
        names = {name.removeprefix(prefix): key for name, key in names.items()}
        spellings.append(names)
    return [*spellings, {f"backbone.{name}": key for name, key in names.items()}]


@dataclass
class Report:
    """What became of a file's tensors and of the network's."""

    source: Source
    matched: list[str] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)  # of the matched ones: those with another name in the file
    resized: list[str] = field(default_factory=list)  # of the matched ones: tables of positions at another image size
    new: list[str] = field(default_factory=list)  # parts of the network that the file does not hold, or holds in another shape
    unused: list[str] = field(default_factory=list)  # parts of the file that the network does not have
    misfits: dict[str, str] = field(default_factory=dict)  # of the new ones: what the file holds in their place
    share: float = 0.0  # of the backbone's parameters, without pooling, that the file holds
    sizes: dict[str, int] = field(default_factory=dict)  # of the network's tensors

    def __str__(self) -> str:
        whole = sum(self.sizes.values()) or 1
        lines = [f"Weights from {self.source.path}, taken for {self.source.layout.publisher}'s layout:"]
        for name in ("matched", "renamed", "resized", "new", "unused"):
            keys = getattr(self, name)
            if keys:
                part = sum(self.sizes.get(key, 0) for key in keys) / whole
                share = f" ({part:.1%} of the parameters)" if name != "unused" else ""
                first = [f"{key} ({self.misfits[key]})" if name == "new" and key in self.misfits else key for key in keys[:4]]
                shown = "" if name in ("matched", "renamed") else f": {', '.join(first)}{', ...' if len(keys) > 4 else ''}"
                lines.append(f"  {len(keys)} {name}{share}{shown}")
        return "\n".join(lines)

    def full(self) -> str:
        """Every tensor, one a line."""
        rows = [f"{name} {key}" for name in ("matched", "resized", "new", "unused") for key in getattr(self, name)]
        return "".join(f"{row}\n" for row in rows)


def compare(model: nn.Module, source: Source) -> tuple[Report, State]:
    """What of a file fits a network with .backbone and .head (which may be on the meta device), and the tensors that do."""
    own = {key: value for key, value in model.state_dict().items() if not key.endswith(COUNTER)}
    found = _adapt(source.tensors, own, model)
    report = Report(source, sizes={key: value.numel() for key, value in own.items()})
    accepted: State = {}
    for key, tensor in own.items():
        candidate = found.get(key)
        if candidate is not None and candidate.shape != tensor.shape and key.endswith(POSITIONS):
            candidate = _resize(candidate, tensor, model)
            if candidate is not None:
                report.resized.append(key)
        if candidate is not None and candidate.shape == tensor.shape and candidate.is_floating_point():
            accepted[key] = candidate
            report.matched.append(key)
            continue
        report.new.append(key)
        if candidate is not None:
            there, here = ("x".join(map(str, shape)) for shape in (candidate.shape, tensor.shape))
            report.misfits[key] = f"{there} {str(candidate.dtype).removeprefix('torch.')} in the file, {here} here"
    report.renamed = [key for key in report.matched if key not in source.names]
    report.unused = [*(key for key in found if key not in own), *source.unknown]
    needed = {key: size for key, size in report.sizes.items() if not key.startswith(OPTIONAL)}
    report.share = sum(needed[key] for key in accepted if key in needed) / max(sum(needed.values()), 1)
    return report, accepted


def load(model: nn.Module, source: Source, name: str, sibling: Callable[[], str | None] = lambda: None) -> Report:
    """Loads a file into the network called `name` (on the meta device it is only compared); `sibling` finds a file's own variant.

    The head and the pooling are new where the file does not have them; of the rest it must hold FLOOR of the parameters, and the report
    says what is new. InputError otherwise.
    """
    report, accepted = compare(model, source)
    if report.share < FLOOR:
        other = sibling()
        told = f"This is {other}; you asked for {name}. " if other else ""
        needed = [key for key in report.new if not key.startswith(OPTIONAL)]
        strange = [f"{key} ({report.misfits.get(key, 'not in the file')})" for key in needed]
        raise InputError(
            f"'{source.path}' does not fit. {told}Taken for {source.layout.publisher}'s layout, it holds {report.share:.0%} of the "
            f"parameters of this backbone. First that do not fit: {'; '.join(strange[:3])}."
        )
    if not next(model.parameters()).is_meta:
        model.load_state_dict({**model.state_dict(), **accepted}, strict=True)
    return report


OPTIONAL = ("head.", "backbone.pooling.", "backbone.norms.", "painted_pixel")  # parts that a task may add to a published network


def _adapt(found: State, own: Mapping[str, Tensor], model: Any) -> State:
    """Moves what stands elsewhere in a network of another use: the last norm, and BEiT's table of offsets, shared or one a block."""
    moved = dict(found)
    norms = [("backbone.norm.", "backbone.pooling.norm."), ("backbone.pooling.norm.", "backbone.norm.")]
    if not isinstance(model.backbone.pooling, PoolNorm):  # that one norms the mean of the patches, the others the tokens
        for a, b in norms:
            if f"{a}weight" in own and f"{a}weight" not in found and f"{b}weight" in found:
                moved = {(a + key.removeprefix(b) if key.startswith(b) else key): value for key, value in moved.items()}
    shared = "backbone.rel_pos_bias.relative_position_bias_table"
    if shared in moved and shared not in own:
        blocks = [key for key in own if key.endswith(".attn.rel_pos_bias.relative_position_bias_table")]
        moved = {**{key: value for key, value in moved.items() if key != shared}, **dict.fromkeys(blocks, moved[shared])}
    return moved


def _resize(table: Tensor, own: Tensor, model: Any) -> Tensor | None:
    """The file's table of positions or offsets at this network's grid; the file's grid is taken for a square one."""
    if table.ndim != own.ndim or table.shape[-1] != own.shape[-1]:
        return None
    if table.ndim == 2:  # offsets: those of a window, or those of all patches and three rows for the class token
        extra = 0 if math.isqrt(len(own)) ** 2 == len(own) else 3
        side = (math.isqrt(max(len(table) - extra, 0)) + 1) // 2
        if (2 * side - 1) ** 2 + extra != len(table):
            return None
        window = (math.isqrt(len(own)) + 1) // 2
        return resize_relative_positions(table, (side, side), model.backbone.spec.grid if extra else (window, window))
    grid = model.backbone.spec.grid
    extra = own.shape[1] - grid[0] * grid[1]
    side = math.isqrt(max(table.shape[1] - extra, 0))
    return resize_positions(table, (side, side), grid) if side > 0 and side * side + extra == table.shape[1] else None


def write(state: State, layout: Layout, path: str | Path) -> None:
    """Writes a network's weights under a publisher's names: safetensors, or a torch file."""
    path = Path(path)
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in layout.to_theirs(state).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(tensors, path)
    elif path.suffix in (".pth", ".pt", ".bin"):
        torch.save({layout.wrapper: tensors} if layout.wrapper else tensors, path)
    else:
        raise InputError(f"'{path}' ends in '{path.suffix}'; weights are written to pth, pt, bin or safetensors files.")
