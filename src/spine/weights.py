"""Reads weight files and loads them: what did not fit is said, and nothing is left random without a word.

A file is read without running anything in it, the publisher's layout is recognised by its names, and its tensors are renamed to ours.
Layouts are tables that work both ways, so that a network can be written back in the layout of any publisher.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spine.blocks.conv import PoolNorm
from spine.blocks.positions import resize_positions, resize_relative_positions
from spine.errors import InputError, nearest
from spine.inputs import InputSettings, settings_of_config
from spine.names import COUNTER, OWN, Layout, State

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state", "module")  # averaged weights first
PREFIXES = ("module.", "model.", "backbone.", "encoder.", "_orig_mod.", "opt.target.", "params.")
POSITIONS = ("pos_embed", "relative_position_bias_table")  # tables that follow the image size or the window
FLOOR = 0.95  # share of a backbone's parameters that a file must hold
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


class Source(NamedTuple):
    """A file as it was understood."""

    path: str
    layout: Layout
    tensors: State  # under our names
    unknown: list[str]  # names that the layout does not know
    names: frozenset[str]  # as the file has them
    config: Mapping[str, Any] = {}  # of the run that made it, where the file is ours


_last: dict[tuple, Source] = {}  # the file that was read last, until it is loaded


def understand(path: str | Path, layouts: Iterable[Layout], layout: str | None = None) -> Source:
    """Reads a file and recognizes its layout by its names: the one that knows most of them, or the one called `layout`.

    The last file is kept until `load` has put it into a network, so that whoever checks it first does not read it twice. A file that has
    changed on disk is read anew.
    """
    layouts = tuple(layouts)
    status = Path(path).stat() if Path(path).is_file() else None
    key = (str(path), layout, tuple(map(id, layouts)), *((status.st_mtime_ns, status.st_size, status.st_ino) if status else ()))
    if key not in _last:
        release()
        _last[key] = _understand(path, layouts, layout)
    return _last[key]


def release() -> None:
    """Forgets the file that was read last."""
    _last.clear()


def _understand(path: str | Path, layouts: Iterable[Layout], layout: str | None) -> Source:
    tensors, config = _read(Path(path))
    found = {key: value for key, value in tensors.items() if not key.endswith(COUNTER)}
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
    return Source(str(path), best, tensors, unknown, frozenset(found), config)


def input_settings(source: Source) -> InputSettings:
    """Which images a file was made for: as our own checkpoint says, else as its layout always is, the size from its positions."""
    settings = settings_of_config(source.config).over(source.layout.input)
    table, kernel = (source.tensors.get(f"backbone.{name}") for name in ("pos_embed", "patch_embed.proj.weight"))
    hybrid = any(name.startswith("backbone.patch_embed.backbone.") for name in source.tensors)
    if settings.image_size or table is None or kernel is None or hybrid or table.ndim != 3 or kernel.ndim != 4:
        return settings
    side = math.isqrt(table.shape[1] - 1)  # one is the class token's
    if side * side + 1 != table.shape[1]:
        return settings
    return replace(settings, image_size=(side * kernel.shape[2], side * kernel.shape[3]))


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
        if candidate is not None and key.endswith(POSITIONS):
            resized = _resize(candidate, tensor, model, source)
            if resized is not None and resized is not candidate:
                report.resized.append(key)
            candidate = candidate if resized is None else resized
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
        release()
    report.source = source._replace(tensors={})  # a report outlives the loading, the file's tensors should not
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


def _resize(table: Tensor, own: Tensor, model: Any, source: Source) -> Tensor | None:
    """The file's table of positions or offsets at this network's grid: itself where it fits, None where its grid is not known."""
    if table.ndim != own.ndim or table.shape[-1] != own.shape[-1]:
        return None
    grid = getattr(model, "grid", None) or model.backbone.spec.grid  # of a masked network, of a plain one
    if table.ndim == 2 and grid is None:  # offsets of a window
        old, new = (((math.isqrt(len(x)) + 1) // 2,) * 2 for x in (table, own))
        return resize_relative_positions(table, old, new) if (2 * old[0] - 1) ** 2 == len(table) else None
    if grid is None:
        return None
    extra = 3 if table.ndim == 2 else own.shape[1] - grid[0] * grid[1]  # three offsets of the class token; its position
    file_grid = _grid_of(table, extra, model, source)
    if file_grid is None:
        return None
    return resize_relative_positions(table, file_grid, grid) if table.ndim == 2 else resize_positions(table, file_grid, grid)


def _grid_of(table: Tensor, extra: int, model: Any, source: Source) -> tuple[int, int] | None:
    """Patches down and across for which a table was learned: as the file's configuration says, else a square; None if neither fits."""

    def fits(grid: tuple[int, int]) -> bool:
        rows = (2 * grid[0] - 1) * (2 * grid[1] - 1) if table.ndim == 2 else grid[0] * grid[1]
        return rows + extra == table.shape[0 if table.ndim == 2 else 1]

    size = settings_of_config(source.config).image_size
    if size is not None:
        told = (-(-size[0] // model.patch_size), -(-size[1] // model.patch_size))  # dense tasks pad to whole patches
        if fits(told):
            return told
    own = getattr(model, "grid", None) or model.backbone.spec.grid
    if source.layout is OWN and fits(own):  # a file of ours that does not tell
        return own
    count = max(table.shape[0 if table.ndim == 2 else 1] - extra, 0)
    side = (math.isqrt(count) + 1) // 2 if table.ndim == 2 else math.isqrt(count)
    return (side, side) if side > 0 and fits((side, side)) else None


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
