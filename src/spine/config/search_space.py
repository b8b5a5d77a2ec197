"""The search space of `sweep=optuna`: which keys are varied, and over which values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spine.config.values import format_value
from spine.errors import InputError, nearest

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from optuna.trial import Trial

RANGE_KEYS = ("low", "high", "step", "log")
FORMS = "a list of values, such as [vit, swin], or a range, such as {low: 1e-5, high: 1e-2, log: true}"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included: whole numbers if both bounds and the step are."""

    low: float
    high: float
    step: float | None = None  # distance of the numbers; None: 1 for whole numbers, otherwise any number
    log: bool = False  # uniform in the logarithm

    @property
    def whole(self) -> bool:
        """Whether the numbers are whole."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def suggest(self, trial: Trial, key: str) -> str:
        """Returns the value that a trial of Optuna gets, as text of an override."""
        if self.whole:
            return repr(trial.suggest_int(key, int(self.low), int(self.high), step=int(self.step or 1), log=self.log))
        return (
            f"{trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log):.12g}"  # 0.15, not 0.15000000000000002
        )

    def probes(self) -> tuple[str, ...]:
        """Returns the values that are checked before the first trial, as texts of overrides."""
        return repr(self.low), repr(self.high)


@dataclass(frozen=True)
class Choices:
    """A list of values, as texts of overrides."""

    values: tuple[str, ...]

    def suggest(self, trial: Trial, key: str) -> str:
        """Returns the value that a trial of Optuna gets, as text of an override."""
        return trial.suggest_categorical(key, self.values)

    def probes(self) -> tuple[str, ...]:
        """Returns the values that are checked before the first trial, as texts of overrides."""
        return self.values


Space = dict[str, Range | Choices]


def read_space(node: Mapping[str, object], swept: Sequence[Override] = ()) -> Space:
    """Returns the search space of `sweep.space` and of the keys with several values on the command line.

    The keys of `node` are those of the configuration, with dots (`optimizer.lr`) or nested. A key
    with the value null is left out. Raises InputError for a key or value that is not understood.
    """
    space: Space = {}
    given = [(key, _dimension(key, value)) for key, value in _leaves(node) if value is not None]
    for key, dimension in [*given, *((override.get_key_element(), _swept(override)) for override in swept)]:
        if key in space:
            raise InputError(f"The search space has {key} twice. Write it once, with dots in its name.")
        space[key] = dimension
    if not space:
        raise InputError(f"The search space is empty. Give sweep.space.<key>=<values>: {FORMS}.")
    return space


def override_text(value: object) -> str:
    """Returns a value as Hydra reads it in an override: null, true, 0.1, text, [1,2]."""
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_/][\w/.+@-]*|", value) and value.lower() not in ("true", "false", "null", "nan", "inf")
        return value if plain and value else json.dumps(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{override_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(override_text, value)) + "]"
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _leaves(node: Mapping[str, object], path: str = "") -> Iterator[tuple[str, object]]:
    """Yields the key and the values of each dimension; a dictionary without any key of a range is a parent of others."""
    for name, value in node.items():
        if isinstance(value, Mapping) and value and not set(value) & set(RANGE_KEYS):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _dimension(key: str, value: object) -> Range | Choices:
    place = f"sweep.space.{key}"
    if isinstance(value, Mapping):
        return _range(place, value)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(f"{place} is {format_value(value)}; it must be {FORMS}.")
    if len(value) == 0 or len({json.dumps(each) for each in value}) < len(value):
        raise InputError(f"{place} is {format_value(value)}; it must be a list of different values, at least one.")
    return Choices(tuple(map(override_text, value)))


def _range(place: str, node: Mapping[str, object]) -> Range:
    for name in node:
        if name not in RANGE_KEYS:
            raise InputError(
                f"Unknown key '{place}.{name}'.{nearest(str(name), list(RANGE_KEYS))} Allowed keys: {', '.join(RANGE_KEYS)}."
            )
    low, high, step, log = (node.get(name) for name in RANGE_KEYS)
    for name, number in (("low", low), ("high", high), *((("step", step),) if step is not None else ())):
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise InputError(f"{place}.{name} is {format_value(number)}; it must be a number.")
    assert isinstance(low, int | float) and isinstance(high, int | float) and isinstance(step, int | float | None)
    if not isinstance(log, bool | None):
        raise InputError(f"{place}.log is {format_value(log)}; it must be true or false.")
    if low >= high:
        raise InputError(f"{place} goes from {low} to {high}; low must be smaller than high.")
    if step is not None and not 0 < step <= high - low:
        raise InputError(f"{place}.step is {step}; it must be above 0 and at most {high - low}, the width of the range.")
    if log and low <= 0:
        raise InputError(f"{place}.low is {low}; a range with log: true has numbers above 0 only.")
    if log and step is not None:
        raise InputError(f"{place} has a step and log: true. Use one of them.")
    return Range(low, high, step, bool(log))


def _swept(override: Override) -> Range | Choices:
    """Returns the dimension of a key with several values on the command line: a,b or range(1,4) or interval(0.1,0.5)."""
    if override.is_interval_sweep():
        sweep = override.value()
        return Range(float(sweep.start), float(sweep.end), log="log" in sweep.tags)  # type: ignore[union-attr, arg-type]
    return Choices(tuple(override.sweep_string_iterator()))
