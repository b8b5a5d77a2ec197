"""The configuration as it was written, with its interpolations, which a checkpoint carries beside the resolved one."""

from __future__ import annotations

import copy
from typing import Any

from omegaconf import OmegaConf


def keep_interpolations(source: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """`source` with the values that were found out while building: where `after` differs from `before`.

    `before` is `source` resolved. An interpolation stays as long as it still leads to the value in `after`, so that an
    override of what it names reaches it.
    """
    kept = _merge(source, before, after, keep=True)
    resolved = OmegaConf.to_container(OmegaConf.create(kept), resolve=True)
    return _merge(kept, resolved, after, keep=False)


def _merge(source: Any, before: Any, after: Any, keep: bool) -> Any:
    if isinstance(source, dict) and isinstance(before, dict) and isinstance(after, dict):
        return {
            key: _merge(source[key], before[key], value, keep) if key in source and key in before else copy.deepcopy(value)
            for key, value in after.items()
        }
    if isinstance(source, list) and isinstance(before, list) and isinstance(after, list) and len(source) == len(after):
        return [_merge(*items, keep) for items in zip(source, before, after, strict=True)]
    interpolated = isinstance(source, str) and "${" in source
    return copy.deepcopy(source if before == after or (keep and interpolated) else after)
