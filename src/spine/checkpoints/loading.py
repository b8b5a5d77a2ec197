"""Loads weight files into networks and reports what was loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from spine.checkpoints.input_settings import InputSettings, settings_of_config
from spine.checkpoints.mapping import COUNTER, SPINE_LAYOUT, State
from spine.checkpoints.reader import WeightFile, release
from spine.errors import InputError
from spine.layers.conv import PoolNorm
from spine.layers.positions import resize_positions, resize_relative_positions

POSITIONS = ("pos_embed", "relative_position_bias_table")  # tables that follow the image size or the window


MIN_COVERAGE = 0.95  # share of a backbone's parameters that a file must hold


def input_settings(source: WeightFile) -> InputSettings:
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


@dataclass
class LoadReport:
    """What became of a file's tensors and of the network's."""

    source: WeightFile
    matched: list[str] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)  # of the matched ones: those with another name in the file
    resized: list[str] = field(default_factory=list)  # of the matched ones: tables of positions at another image size
    new: list[str] = field(default_factory=list)  # parts of the network that the file does not hold, or holds in another shape
    unused: list[str] = field(default_factory=list)  # parts of the file that the network does not have
    misfits: dict[str, str] = field(default_factory=dict)  # of the new ones: what the file holds in their place
    coverage: float = 0.0  # of the backbone's parameters, without pooling, that the file holds
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


def compare(model: nn.Module, source: WeightFile) -> tuple[LoadReport, State]:
    """What of a file fits a network with .backbone and .head (which may be on the meta device), and the tensors that do."""
    own = {key: value for key, value in model.state_dict().items() if not key.endswith(COUNTER)}
    found = _adapt(source.tensors, own, model)
    report = LoadReport(source, sizes={key: value.numel() for key, value in own.items()})
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
    report.coverage = sum(needed[key] for key in accepted if key in needed) / max(sum(needed.values()), 1)
    return report, accepted


def load(model: nn.Module, source: WeightFile, name: str, sibling: Callable[[], str | None] = lambda: None) -> LoadReport:
    """Loads a file into the network called `name` (on the meta device it is only compared); `sibling` finds a file's own variant.

    The head and the pooling are new where the file does not have them; of the rest it must hold MIN_COVERAGE of the parameters, and the report
    says what is new. InputError otherwise.
    """
    report, accepted = compare(model, source)
    if report.coverage < MIN_COVERAGE:
        other = sibling()
        told = f"This is {other}; you asked for {name}. " if other else ""
        needed = [key for key in report.new if not key.startswith(OPTIONAL)]
        strange = [f"{key} ({report.misfits.get(key, 'not in the file')})" for key in needed]
        raise InputError(
            f"'{source.path}' does not fit. {told}Taken for {source.layout.publisher}'s layout, it holds {report.coverage:.0%} of the "
            f"parameters of this backbone. First that do not fit: {'; '.join(strange[:3])}."
        )
    if not next(model.parameters()).is_meta:
        model.load_state_dict({**model.state_dict(), **accepted}, strict=True)
        release()
    report.source = source._replace(tensors={})  # a report outlives the loading, the file's tensors should not
    return report


OPTIONAL = ("head.", "backbone.pooling.", "backbone.norms.", "mask_pixel")  # parts that a task may add to a published network


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


def _resize(table: Tensor, own: Tensor, model: Any, source: WeightFile) -> Tensor | None:
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


def _grid_of(table: Tensor, extra: int, model: Any, source: WeightFile) -> tuple[int, int] | None:
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
    if source.layout is SPINE_LAYOUT and fits(own):  # a file of ours that does not tell
        return own
    count = max(table.shape[0 if table.ndim == 2 else 1] - extra, 0)
    side = (math.isqrt(count) + 1) // 2 if table.ndim == 2 else math.isqrt(count)
    return (side, side) if side > 0 and fits((side, side)) else None
