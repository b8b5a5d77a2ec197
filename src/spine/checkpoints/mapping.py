"""Maps the tensor names of publishers to spine's names, in both directions.

A `Layout` describes one kind of published file: a list of `Rule`s for its tensor names, and the
conventions that its networks follow. "Source" is always the publisher's side of a rule, "target" is
spine's side.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from spine.checkpoints.input_settings import InputSettings
from spine.errors import InputError
from spine.option_types import Options

BATCH_COUNTER = "num_batches_tracked"  # suffix of the step counters of batch norm, which are not weights

State = dict[str, Tensor]
HeadOptions = Options | Callable[[State], Options]  # a function determines them from tensors with spine's names


class TensorConversion(NamedTuple):
    """Converts the tensors of a publisher to spine's form, and back.

    A function that gives several tensors returns a tuple.
    """

    to_spine: Callable[..., Tensor | tuple[Tensor, ...]]  # takes one tensor for each source name of the rule
    to_publisher: Callable[..., tuple[Tensor, ...]]  # takes one tensor for each target name


# Publisher: separate layers for query, key and value; spine: one layer.
JOIN_QKV = TensorConversion(lambda *parts: torch.cat(parts), lambda x: x.chunk(3))
# Publisher: 1x1 convolution (out, in, 1, 1); spine: linear layer (out, in).
CONV_TO_LINEAR = TensorConversion(lambda x: x.flatten(1), lambda x: (x[..., None, None],))
# Publisher: linear layer (out, in); spine: 1x1 convolution (out, in, 1, 1).
LINEAR_TO_CONV = TensorConversion(lambda x: x[..., None, None], lambda x: (x.flatten(1),))


class Rule(NamedTuple):
    """Maps one or more tensor names of a publisher to one or more tensor names of spine.

    `*` matches one component of a name (between dots) or a part of one. `**` is allowed at the end and
    matches the rest of the name. The text that the wildcards match is filled into the wildcards of the
    other side, in order.
    """

    source: str | tuple[str, ...]  # more than one name if `conversion` combines several tensors
    # None: the tensor is ignored, because spine does not store it (such as index tables); more than one name if `conversion`
    # splits the tensor
    target: str | tuple[str, ...] | None
    conversion: TensorConversion | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The source names as a tuple."""
        return (self.source,) if isinstance(self.source, str) else self.source

    @property
    def targets(self) -> tuple[str, ...]:
        """The target names as a tuple. Empty if the tensor is ignored."""
        return (self.target,) if isinstance(self.target, str) else self.target or ()

    def convert(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        """Converts tensors of the sources to tensors of the targets."""
        found = self.conversion.to_spine(*tensors) if self.conversion else tensors[0]
        return found if isinstance(found, tuple) else (found,)

    def convert_back(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        """Converts tensors of the targets to tensors of the sources."""
        return self.conversion.to_publisher(*tensors) if self.conversion else (tensors[0],)


@dataclass(frozen=True)
class Layout:
    """The tensor names of one publisher for one kind of network, and the conventions of its files.

    The first rule that matches a name applies.
    """

    publisher: str
    rules: tuple[Rule, ...]
    options: Options = field(default_factory=dict)  # of spine's backbone builder
    head_options: HeadOptions = field(default_factory=dict)  # of spine's head
    required: tuple[str, ...] = ()  # names that every file of this layout contains
    forbidden: tuple[str, ...] = ()  # names that no file of this layout contains
    wrapper: str | None = None  # key under which the publisher's torch files store the state dict
    input_settings: InputSettings = field(default_factory=InputSettings)  # of the images, if all files of the layout agree
    writable: bool = True  # False: the files are read only, such as TensorFlow's checkpoints

    def match_fraction(self, names: Iterable[str]) -> float:
        """Returns the fraction of `names` that a rule matches. 0 if a required name is missing or a forbidden one present."""
        names = list(names)
        present = set(names)
        if not present.issuperset(self.required) or not present.isdisjoint(self.forbidden):
            return 0.0
        return sum(self._find_rule(name) is not None for name in names) / max(len(names), 1)

    def to_spine(self, state: State) -> tuple[State, list[str]]:
        """Converts a publisher's state dict to spine's names. Also returns the names that could not be mapped."""
        converted: State = {}
        unmatched: list[str] = []
        for name in state:
            match = self._find_rule(name)
            if match is None:
                unmatched.append(name)
                continue
            rule, wildcards = match
            targets = [_fill(target, wildcards) for target in rule.targets]
            if not targets or targets[0] in converted:
                continue
            sources = [_fill(source, wildcards) for source in rule.sources]
            if missing := [source for source in sources if source not in state]:
                unmatched.append(f"{name} (without {', '.join(missing)})")
                continue
            converted |= zip(targets, rule.convert([state[source] for source in sources]), strict=True)
        return converted, unmatched

    def to_publisher(self, state: State) -> State:
        """Converts spine's state dict to the publisher's names. Raises InputError if no rule matches a tensor."""
        converted: State = {}
        for name in state:
            match = _first_match(((rule, rule.targets) for rule in self.rules), name)
            targets = [_fill(target, match[1]) for target in match[0].targets] if match else []
            if match is None or any(target not in state for target in targets):
                raise InputError(f"The layout of {self.publisher} has no tensor for '{name}'.")
            rule, wildcards = match
            sources = [_fill(source, wildcards) for source in rule.sources]
            if sources[0] not in converted:
                converted |= zip(sources, rule.convert_back([state[target] for target in targets]), strict=True)
        return converted

    def _find_rule(self, name: str) -> tuple[Rule, tuple[str, ...]] | None:
        """The first rule that matches a publisher's tensor name, and the text of its wildcards."""
        return _first_match(((rule, rule.sources) for rule in self.rules), name)


def with_input_settings(settings: InputSettings, layouts: Iterable[Layout]) -> tuple[Layout, ...]:
    """Returns the layouts; those without input settings get `settings`."""
    unknown = InputSettings()
    return tuple(replace(layout, input_settings=settings) if layout.input_settings == unknown else layout for layout in layouts)


def classifier_bias(state: State) -> dict[str, bool]:
    """Head options of layouts whose classifier may have no bias. Empty if a file holds no classifier."""
    return {"bias": "head.linear.bias" in state} if "head.linear.weight" in state else {}


SPINE_LAYOUT = Layout(
    "spine",
    (
        Rule("backbone.**", "backbone.**"),
        Rule("head.**", "head.**"),
        Rule("auxiliary_head.**", "auxiliary_head.**"),
        Rule("mask_pixel", "mask_pixel"),
        Rule("painted_pixel", "mask_pixel"),  # name in older checkpoints
    ),
    head_options=classifier_bias,
)


def _first_match(rules: Iterable[tuple[Rule, tuple[str, ...]]], name: str) -> tuple[Rule, tuple[str, ...]] | None:
    """The first rule with a pattern that matches `name`, and the text of its wildcards. `rules`: with the patterns to try."""
    for rule, patterns in rules:
        for pattern in patterns:
            wildcards = _match(pattern, name)
            if wildcards is not None:
                return rule, wildcards
    return None


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*\*", "(.+)").replace(r"\*", r"([^.]+)"))


def _match(pattern: str, name: str) -> tuple[str, ...] | None:
    """The text that each wildcard of a pattern matches in a name. None if the pattern does not match."""
    match = _compiled(pattern).fullmatch(name)
    return match.groups() if match else None


def _fill(pattern: str, wildcards: tuple[str, ...]) -> str:
    """Replaces the wildcards of a pattern by text, in order."""
    parts = re.split(r"\*\*|\*", pattern)
    return "".join(part + text for part, text in zip(parts, (*wildcards, ""), strict=True))
