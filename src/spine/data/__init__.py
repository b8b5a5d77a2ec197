"""Data: formats, transforms, sampling and loading."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spine.config.schemas import Config
    from spine.data.data_module import DataModule
    from spine.interfaces import Labels


def build_data(config: Config, labels: Labels | None = None) -> DataModule:
    """The DataModule of a plain configuration. See `spine.data.building.build_data`."""
    from spine.data.building import build_data as build  # imports Lightning, which takes seconds

    return build(config, labels)
