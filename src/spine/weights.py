"""Reads weight files and loads them: what did not fit is said, and nothing is left random without a word.

A file is read without running anything in it, the publisher's layout is recognised by its names, and its tensors are renamed to ours.
Layouts are tables that work both ways, so that a network can be written back in the layout of any publisher.
"""

from __future__ import annotations

import functools
import math
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spine.blocks.conv import PoolNorm
from spine.blocks.positions import resize_positions, resize_relative_positions
from spine.errors import InputError, nearest

State = dict[str, Tensor]
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state", "module")  # averaged weights first
PREFIXES = ("module.", "model.", "backbone.", "encoder.", "_orig_mod.", "opt.target.", "params.")
POSITIONS = ("pos_embed", "relative_position_bias_table")  # tables that follow the image size or the window
FLOOR = 0.95  # share of a backbone's parameters that a file must hold
SUFFIXES = "pth, pt, bin, ckpt, safetensors or npz"


class Transform(NamedTuple):
    """Between a publisher's tensors and ours, both ways."""

    to_ours: Callable[..., Tensor]  # one or more of theirs -> ours
    to_theirs: Callable[[Tensor], tuple[Tensor, ...]]


JOIN = Transform(lambda *parts: torch.cat(parts), lambda x: x.chunk(3))  # query, key and value in one layer
FLATTEN = Transform(lambda x: x.flatten(1), lambda x: (x[..., None, None],))  # a 1x1 convolution for a linear layer
UNFLATTEN = Transform(lambda x: x[..., None, None], lambda x: (x.flatten(1),))


class Row(NamedTuple):
    """Names of theirs and of ours. `*` stands for one part between dots, or a piece of one; `**` at the end for all that follows."""

    theirs: str | tuple[str, ...]
    ours: str | None  # None: what our network does not hold, such as tables of indices
    transform: Transform | None = None


HeadOptions = Mapping[str, Any] | Callable[[State], Mapping[str, Any]]  # of our head, or what reads them off tensors of ours


@dataclass(frozen=True)
class Layout:
    """How a publisher names the tensors of a system, and the conventions that its files bring. The first row that fits counts."""

    publisher: str
    rows: tuple[Row, ...]
    options: Mapping[str, Any] = field(default_factory=dict)  # of our builder
    head_options: HeadOptions = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # names without which a file is not of this layout
    lacks: tuple[str, ...] = ()  # names with which it is not
    wrapper: str | None = None  # under which its torch files hold the tensors

    def claimed(self, names: Iterable[str]) -> float:
        """Share of `names` that the rows know."""
        names = list(names)
        if any(name not in names for name in self.needs) or any(name in names for name in self.lacks):
            return 0.0
        return sum(self._row(name) is not None for name in names) / max(len(names), 1)

    def to_ours(self, state: State) -> tuple[State, list[str]]:
        """Tensors under our names, and the names that no row knows."""
        found: State = {}
        unknown: list[str] = []
        for name in state:
            known = self._row(name)
            if known is None:
                unknown.append(name)
                continue
            row, stars = known
            parts = [_fill(pattern, stars) for pattern in _patterns(row)]
            if row.ours is None or _fill(row.ours, stars) in found:
                continue
            if missing := [part for part in parts if part not in state]:
                unknown.append(f"{name} (without {', '.join(missing)})")
                continue
            tensors = [state[part] for part in parts]
            found[_fill(row.ours, stars)] = row.transform.to_ours(*tensors) if row.transform else tensors[0]
        return found, unknown

    def to_theirs(self, state: State) -> State:
        """Tensors under their names; InputError where a tensor of ours has no place there."""
        written: State = {}
        for name, tensor in state.items():
            for row in self.rows:
                stars = _match(row.ours, name) if row.ours else None
                if stars is not None:
                    parts = row.transform.to_theirs(tensor) if row.transform else (tensor,)
                    written |= {_fill(pattern, stars): part for pattern, part in zip(_patterns(row), parts, strict=True)}
                    break
            else:
                raise InputError(f"{self.publisher} has no place for '{name}'; its network of this kind does not have it.")
        return written

    def _row(self, name: str) -> tuple[Row, tuple[str, ...]] | None:
        for row in self.rows:
            for pattern in _patterns(row):
                stars = _match(pattern, name)
                if stars is not None:
                    return row, stars
        return None


def _patterns(row: Row) -> tuple[str, ...]:
    return (row.theirs,) if isinstance(row.theirs, str) else row.theirs


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*\*", "(.+)").replace(r"\*", r"([^.]+)"))


def _match(pattern: str, name: str) -> tuple[str, ...] | None:
    """What the stars of a pattern stand for in a name; None where it does not fit."""
    found = _compiled(pattern).fullmatch(name)
    return found.groups() if found else None


def _fill(pattern: str, stars: tuple[str, ...]) -> str:
    """The pattern with its stars filled in, in order."""
    parts = re.split(r"\*\*|\*", pattern)
    return "".join(part + star for part, star in zip(parts, (*stars, ""), strict=True))


OWN = Layout("spine", (Row("backbone.**", "backbone.**"), Row("head.**", "head.**"), Row("painted_pixel", "painted_pixel")))


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
        raise InputError(f"'{path}' cannot be read as weights; it may be truncated ({error}).") from error
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
            raise InputError(f"'{path}' holds numbers that are not finite, first in '{key}'; the file is damaged or its training diverged.")
    return tensors


def _open(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if path.suffix == ".npz":
        import numpy as np

        with np.load(path, allow_pickle=False) as arrays:
            return {key.replace("/", "."): torch.from_numpy(arrays[key]) for key in arrays.files}
    return torch.load(path, map_location="cpu", weights_only=True)


class Source(NamedTuple):
    """A file as it was understood."""

    path: str
    layout: Layout
    tensors: State  # under our names
    unknown: list[str]  # names that the layout does not know


def understand(path: str | Path, layouts: Iterable[Layout], layout: str | None = None) -> Source:
    """Reads a file and recognises its layout by its names: the one that knows most of them, or the one called `layout`."""
    found = {key: value for key, value in read(path).items() if not key.endswith("num_batches_tracked")}
    every = (*layouts, OWN)
    choices = [candidate for candidate in every if layout in (None, candidate.publisher)]
    if not choices:
        publishers = sorted({candidate.publisher for candidate in every})
        raise InputError(f"Unknown layout '{layout}'.{nearest(layout or '', publishers)} Choices: {', '.join(publishers)}.")
    spellings = _spellings(found)
    shares = [(candidate.claimed(names), candidate, names) for names in spellings for candidate in choices]
    # the first of equals; under the prefix that is only guessed every name would be one of ours
    share, best, names = max(shares, key=lambda item: item[0] / (2 if item[1] is OWN and item[2] is spellings[-1] else 1))
    if share < 0.5:
        strange = [name for name in found if best.claimed([name]) == 0] or list(found)
        raise InputError(
            f"'{path}' holds {len(found)} tensors, and the layout that knows most of their names, {best.publisher}'s, knows "
            f"{share:.0%} of them. First strange ones: {', '.join(strange[:3])}. Is it a file of another backbone?"
        )
    tensors, unknown = best.to_ours({name: found[original] for name, original in names.items()})
    return Source(str(path), best, tensors, unknown)


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
    resized: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)  # parts of the network that the file does not hold, or holds in another shape
    unused: list[str] = field(default_factory=list)  # parts of the file that the network does not have
    misfits: list[str] = field(default_factory=list)  # of the backbone: what was expected and what is there
    share: float = 0.0  # of the backbone's parameters, without pooling, that the file holds
    sizes: dict[str, int] = field(default_factory=dict)  # of the network's tensors

    def __str__(self) -> str:
        whole = sum(self.sizes.values()) or 1
        lines = [f"Weights from {self.source.path}, taken for {self.source.layout.publisher}'s layout:"]
        for name in ("matched", "resized", "new", "unused"):
            keys = getattr(self, name)
            if keys:
                part = sum(self.sizes.get(key, 0) for key in keys) / whole
                share = f" ({part:.1%} of the parameters)" if name != "unused" else ""
                first = "" if name == "matched" else f": {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}"
                lines.append(f"  {len(keys)} {name}{share}{first}")
        return "\n".join(lines)

    def full(self) -> str:
        """Every tensor, one a line."""
        return (
            "\n".join(f"{name} {key}" for name in ("matched", "resized", "new", "unused") for key in getattr(self, name)) + "\n"
        )


def compare(model: nn.Module, source: Source) -> tuple[Report, State]:
    """What of a file fits a network with .backbone and .head (which may be on the meta device), and the tensors that do."""
    own = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
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
        if not key.startswith(OPTIONAL):
            shape = "is not in the file"
            if candidate is not None:
                shape = f"is {tuple(candidate.shape)} {str(candidate.dtype).removeprefix('torch.')} in the file"
            report.misfits.append(f"{key} {tuple(tensor.shape)} {shape}")
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
        raise InputError(
            f"'{source.path}' does not fit. {told}Taken for {source.layout.publisher}'s layout, it holds {report.share:.0%} of the "
            f"parameters of this backbone. First that do not fit: {'; '.join(report.misfits[:3])}."
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


def write(model: nn.Module, layout: Layout, path: str | Path) -> None:
    """Writes a network's weights under a publisher's names: safetensors, or a torch file."""
    path = Path(path)
    state = {key: value.detach().cpu().contiguous() for key, value in layout.to_theirs(model.state_dict()).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({key: value.clone() for key, value in state.items()}, path)
    elif path.suffix in (".pth", ".pt", ".bin"):
        torch.save({layout.wrapper: state} if layout.wrapper else state, path)
    else:
        raise InputError(f"'{path}' ends in '{path.suffix}'; weights are written to pth, pt, bin or safetensors files.")
