"""spine trains, compares and deploys vision backbones. The public API: create_model, list_backbones, list_variants, load, replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spine import components

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from spine.models.masked import MaskedModel
    from spine.models.network import Model
    from spine.prediction.predictor import Predictor

__all__ = ["create_model", "list_backbones", "list_variants", "load", "replay"]


def list_backbones() -> list[str]:
    """Names that create_model accepts, in alphabetical order."""
    return list(components.modules("backbone"))


def list_variants(backbone: str) -> list[str]:
    """Variants of a backbone, as in its paper. The first is `micro`: below 1 M parameters, for tests and small data sets."""
    return list(components.backbone_module(backbone).VARIANTS)


def create_model(backbone: str, **options: object) -> Model | MaskedModel:
    """Creates a network for one task. See `spine.models.create.create_model` for options, shapes and errors."""
    from spine.models.create import create_model as create  # imports torch: listing names stays fast without it

    return create(backbone, **options)  # type: ignore[arg-type]


def load(path: str | Path, **options: object) -> Predictor:
    """Opens a trained model for predictions: a checkpoint of a run, an exported ONNX file, or published weights.

    `spine.load("best.ckpt").predict("photo.jpg")`. See `spine.prediction.loading.load` for options and errors.
    """
    from spine.prediction.loading import load as open_model  # imports torch and Lightning

    return open_model(path, **options)  # type: ignore[arg-type]


def replay(source: str | Path, number: int = -1) -> dict[str, Tensor]:
    """Makes a batch again whose loss was not finite or a spike. See `spine.config.replay.replay` for arguments and errors."""
    from spine.config.replay import replay as make  # imports torch

    return make(source, number)
