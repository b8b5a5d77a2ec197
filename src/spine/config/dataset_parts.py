"""The keys of `dataset` that belong to its format, and the data sets in dataset.parts of dataset=joined."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spine.config.schemas import LOADER_KEYS
from spine.errors import InputError
from spine.option_types import AboveZero, Allowed, Config, Schema

PART: Schema = {  # keys of a part, in addition to those of its format
    "weight": Allowed(AboveZero | None, "a share of the draws above 0, relative to the other parts, or null"),
    "used_for": Allowed(
        Annotated[list[Literal["train", "val", "test"]], Field(min_length=1)] | None,
        "a list of splits, such as [train], or null for all",
    ),
}


def format_options(node: Config) -> Config:
    """Returns a data set's node without the keys that are not arguments of its format: those of the loader, and of a part."""
    return {key: value for key, value in node.items() if key not in LOADER_KEYS and key not in PART}


def dataset_parts(config: Config) -> dict[str, Config]:
    """Returns the nodes of the data sets in dataset.parts by their path: none unless dataset=joined. Raises InputError for other values."""
    parts = (config.get("dataset") or {}).get("parts") or {}
    nodes = parts if isinstance(parts, dict) else {"": parts}
    for name, node in nodes.items():
        if not isinstance(node, dict):
            path = f"dataset.parts.{name}".removesuffix(".")
            raise InputError(f"{path} is {node!r}; dataset.parts holds named data sets, each with its _target_.")
    return {f"dataset.parts.{name}": node for name, node in nodes.items()}
