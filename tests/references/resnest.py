"""ResNeSt: the authors', and timm's, which has the two small ones of GluonCV."""

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

from recording import CLASSES, Case, checkout, renamed

from spine.backbones.resnest import LAYOUT


def authors(name):
    """A network of the authors' ablation study. Their package asks fvcore for a registry; a decorator that does nothing stands in."""

    def build():
        folder = Path(checkout("ResNeSt", "resnest/torch/models/splat.py").__file__).parent
        package, registry = ModuleType("resnest_models"), ModuleType("resnest_models.build")
        package.__path__ = [str(folder)]
        registry.RESNEST_MODELS_REGISTRY = SimpleNamespace(register=lambda: lambda function: function)
        sys.modules |= {"resnest_models": package, "resnest_models.build": registry}
        return getattr(importlib.import_module("resnest_models.ablation"), name)(num_classes=CLASSES)

    return build


def timm():
    import timm

    return timm.create_model("resnest14d", num_classes=CLASSES)


def case(number, variant):
    return Case(
        f"resnest-authors-{number}",
        f"zhanghang1989/ResNeSt {variant}",
        authors(variant),
        variant,
        renamed(LAYOUT),
        sizes=((128, 128), (75, 101)),
    )


CASES = [
    case("4s2x40d", "resnest50_fast_4s2x40d"),
    case("1s4x24d", "resnest50_fast_1s4x24d"),
    Case("resnest-timm", "timm resnest14d", timm, "resnest14", renamed(LAYOUT)),
]
