"""ResNeSt of the authors, timm, which includes the two small networks of GluonCV, and mmpretrain."""

import importlib
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

from recording import CLASSES, Case, checkout

from references import _openmmlab as openmmlab


def authors(module):
    """Imports a module of the authors. A decorator without effect replaces the registry of fvcore."""
    folder = Path(checkout("ResNeSt", "resnest/torch/models/splat.py").__file__).parent
    package, registry = ModuleType("resnest_models"), ModuleType("resnest_models.build")
    package.__path__ = [str(folder)]
    registry.RESNEST_MODELS_REGISTRY = SimpleNamespace(register=lambda: lambda function: function)
    sys.modules |= {"resnest_models": package, "resnest_models.build": registry}
    return importlib.import_module(f"resnest_models.{module}")


def authors_small():
    resnet = authors("resnet")
    options = {"radix": 2, "groups": 1, "bottleneck_width": 64, "stem_width": 32, "num_classes": CLASSES}
    return resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], deep_stem=True, avg_down=True, avd=True, **options)


def ablation(name):
    return getattr(authors("ablation"), name)(num_classes=CLASSES)


def timm():
    import timm

    return timm.create_model("resnest14d", num_classes=CLASSES)


def mmpretrain():
    """A network with the hyperparameters of our micro, added as another depth."""
    openmmlab.models()
    from mmpretrain.models.backbones import resnest

    head = {"type": "LinearClsHead", "num_classes": CLASSES, "in_channels": 512}
    with mock.patch.dict(resnest.ResNeSt.arch_settings, {5: (resnest.Bottleneck, (1, 1, 2, 1))}):
        backbone = {"type": "ResNeSt", "depth": 5, "stem_channels": 32, "base_channels": 16}
        return openmmlab.classifier(backbone, head, {"type": "GlobalAveragePooling"})


def ablation_case(number):
    name = f"resnest50_fast_{number}"
    source, build = f"zhanghang1989/ResNeSt {name}", partial(ablation, name)
    return Case(f"resnest-official-{number}", source, build, name, sizes=((128, 128), (75, 101)), slow=True)


CASES = [
    Case("resnest-official", "zhanghang1989/ResNeSt ResNet", authors_small, "resnest14", sizes=((128, 128), (75, 101))),
    ablation_case("4s2x40d"),
    ablation_case("1s4x24d"),
    Case("resnest-timm", "timm resnest14d", timm, "resnest14"),
    Case("resnest-openmmlab", "mmpretrain ResNeSt", mmpretrain, "micro", theirs=openmmlab.logits),
]
