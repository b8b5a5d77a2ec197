"""How publishers name the tensors of a system: tables that work both ways, with the conventions that such files bring."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spine.checkpoints.input_settings import InputSettings
from spine.errors import InputError, nearest

State = dict[str, Tensor]
COUNTER = "num_batches_tracked"  # of batch norms; no weight


class TensorConversion(NamedTuple):
    """Between a publisher's tensors and ours, both ways."""

    to_ours: Callable[..., Tensor]  # one or more of theirs -> ours
    to_theirs: Callable[[Tensor], tuple[Tensor, ...]]


JOIN = TensorConversion(lambda *parts: torch.cat(parts), lambda x: x.chunk(3))  # query, key and value in one layer
FLATTEN = TensorConversion(lambda x: x.flatten(1), lambda x: (x[..., None, None],))  # a 1x1 convolution for a linear layer
UNFLATTEN = TensorConversion(lambda x: x[..., None, None], lambda x: (x.flatten(1),))


class Rule(NamedTuple):
    """Names of theirs and of ours. `*` stands for one part between dots, or a piece of one; `**` at the end for all that follows."""

    theirs: str | tuple[str, ...]
    ours: str | None  # None: what our network does not hold, such as tables of indices
    transform: TensorConversion | None = None


HeadOptions = Mapping[str, Any] | Callable[[State], Mapping[str, Any]]  # of our head, or what reads them off tensors of ours


@dataclass(frozen=True)
class Layout:
    """How a publisher names the tensors of a system, and the conventions that its files bring. The first row that fits counts."""

    publisher: str
    rows: tuple[Rule, ...]
    options: Mapping[str, Any] = field(default_factory=dict)  # of our builder
    head_options: HeadOptions = field(default_factory=dict)
    required: tuple[str, ...] = ()  # names without which a file is not of this layout
    forbidden: tuple[str, ...] = ()  # names with which it is not
    wrapper: str | None = None  # under which its torch files hold the tensors
    input: InputSettings = field(default_factory=InputSettings)  # of the images, where all of its files agree

    def match_fraction(self, names: Iterable[str]) -> float:
        """Share of `names` that the rows know."""
        names = list(names)
        if any(name not in names for name in self.required) or any(name in names for name in self.forbidden):
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

    def _row(self, name: str) -> tuple[Rule, tuple[str, ...]] | None:
        for row in self.rows:
            for pattern in _patterns(row):
                stars = _match(pattern, name)
                if stars is not None:
                    return row, stars
        return None


def with_input(settings: InputSettings, layouts: Iterable[Layout]) -> tuple[Layout, ...]:
    """The layouts, with `settings` for the images of those that do not know any."""
    unknown = InputSettings()
    return tuple(replace(layout, input=settings) if layout.input == unknown else layout for layout in layouts)


def _patterns(row: Rule) -> tuple[str, ...]:
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


def bias_of_classifier(found: State) -> dict[str, bool]:
    """Head options of files whose last layer may lack its bias; none where a file holds no such layer."""
    return {"bias": "head.linear.bias" in found} if "head.linear.weight" in found else {}


SPINE_LAYOUT = Layout(
    "spine",
    (
        Rule("backbone.**", "backbone.**"),
        Rule("head.**", "head.**"),
        Rule("mask_pixel", "mask_pixel"),
        Rule("painted_pixel", "mask_pixel"),  # its name in older checkpoints
    ),
    head_options=bias_of_classifier,
)


def differing(
    layout: Layout, layouts: Iterable[Layout], options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Conventions in which a network built with `options` differs from those of a layout: name -> the layout's."""
    names = {name for other in layouts for name in other.options}
    conventions = {name: layout.options.get(name, defaults[name]) for name in names}
    return {name: theirs for name, theirs in conventions.items() if options.get(name, defaults[name]) != theirs}


def layout_for(
    state: State, layouts: Iterable[Layout], publisher: str, options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Layout:
    """The layout in which a publisher holds such a network, built with `options`; `safetensors` is our own names.

    The first of the publisher's that has a place for every tensor, knows every name that it would write, and whose conventions are the
    network's; an epsilon may differ, which a network can be told. InputError where there is none.
    """
    every = tuple(layouts)
    wanted = SPINE_LAYOUT.publisher if publisher == "safetensors" else publisher
    choices = [layout for layout in every if layout.publisher == wanted]
    if not choices:
        names = sorted({layout.publisher for layout in every} - {SPINE_LAYOUT.publisher} | {"safetensors"})
        raise InputError(
            f"This backbone cannot be written as '{publisher}'.{nearest(publisher, names)} Choices: {', '.join(names)}."
        )
    told = ""
    for layout in choices:
        other = differing(layout, every, options, defaults) if layout is not SPINE_LAYOUT else {}
        if fixed := [f"{name}={theirs}" for name, theirs in other.items() if not isinstance(theirs, float)]:
            told = told or f"its network has {', '.join(fixed)}, this one has not"
            continue
        try:
            written = layout.to_theirs(state)
        except InputError as error:
            told = told or str(error)
            continue
        if layout.match_fraction(key for key in written if not key.endswith(COUNTER)) == 1.0:
            return layout
        told = told or f"its network of this kind holds other tensors: {', '.join(layout.required or layout.forbidden)}"
    raise InputError(f"This network cannot be written as '{publisher}': {told}.")
