"""The configuration with its interpolations, for checkpoints."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

if TYPE_CHECKING:
    from spine.option_types import Config  # imports pydantic, which would slow down every start


def keep_interpolations(source: Config, before: Config, after: Config) -> Config:
    """Returns `source` with the values that were filled in while building.

    These are the values that differ between `before` and `after`. `before` is the resolved
    `source`, and `after` the complete configuration. An interpolation is kept if it resolves to the
    value in `after`. A later override of the key that it refers to then still has an effect. Calls of
    resolvers are replaced by their values: nothing in a checkpoint is computed.
    """
    merged = _merge_dict(source, before, after, keep=True)
    resolved: Config = OmegaConf.to_container(OmegaConf.create(merged), resolve=True)  # type: ignore[assignment]
    return _merge_dict(merged, resolved, after, keep=False)


def calls_resolver(text: str) -> bool:
    """Whether an interpolation calls a resolver, such as `${oc.env:HOME}`; `${image_size}` refers to a key."""
    return re.search(r"\$\{[^}]*[:$]", text) is not None


def _merge_dict(source: Config, before: Config, after: Config, keep: bool) -> Config:
    """Merges dictionaries.

    `keep`: keep all interpolations; otherwise only those whose value did not change.
    """
    return {
        key: _merge(source[key], before[key], value, keep) if key in source and key in before else copy.deepcopy(value)
        for key, value in after.items()
    }


def _merge(source: object, before: object, after: object, keep: bool) -> object:
    if isinstance(source, dict) and isinstance(before, dict) and isinstance(after, dict):
        return _merge_dict(source, before, after, keep)
    if isinstance(source, list) and isinstance(before, list) and isinstance(after, list) and len(source) == len(after):
        return [_merge(*items, keep) for items in zip(source, before, after, strict=True)]
    is_interpolation = isinstance(source, str) and "${" in source
    if isinstance(source, str) and calls_resolver(source):
        return copy.deepcopy(after)
    return copy.deepcopy(source if before == after or (keep and is_interpolation) else after)
