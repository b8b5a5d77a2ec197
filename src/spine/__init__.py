"""spine trains, compares and serves vision backbones. The public face: create_model, list_backbones, list_variants."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spine.model import MaskedModel, Model

__all__ = ["create_model", "list_backbones", "list_variants"]


def list_backbones() -> list[str]:
    """Names that create_model accepts, in alphabetical order."""
    package = importlib.import_module("spine.backbones")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def list_variants(backbone: str) -> list[str]:
    """Variants of one backbone, as in its paper, beginning with `micro` (below 1 M parameters, for tests and small data)."""
    from spine.model import backbone_module

    return list(backbone_module(backbone).VARIANTS)


def create_model(backbone: str, **options: Any) -> Model | MaskedModel:
    """Builds a network for one task; see `spine.model.create_model` for the options, shapes and errors."""
    from spine.model import create_model as create  # torch is imported here, so that listing names stays instant

    return create(backbone, **options)
