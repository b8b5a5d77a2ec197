"""Types, ranges and descriptions of options. Imports neither torch nor Lightning, so that mistakes are reported quickly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import Field


class Allowed(NamedTuple):
    """The values that one key may have."""

    kind: Any  # a type that pydantic checks, without conversion
    description: str  # completes the message "<key> is <value>; it must be ...", with the unit


Schema = Mapping[str, Allowed]
Config = dict[str, Any]  # a plain configuration or a part of one: dictionaries, lists, text, numbers, booleans and None
Options = Mapping[str, object]  # keyword arguments

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
Size = Annotated[list[Positive], Field(min_length=2, max_length=2)]
Channels = Annotated[list[float], Field(min_length=3, max_length=3)]
Duration = Annotated[str, Field(pattern=r"^\d+:\d\d:\d\d:\d\d$")]

SWITCH = Allowed(bool, "true or false")
OPTIONAL_SWITCH = Allowed(bool | None, "true, false or null")
