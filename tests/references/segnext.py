"""SegNeXt's encoder: the authors'."""

import sys
import types

from recording import CLASSES, Case, checkout, renamed
from torch import nn

from spine.backbones.segnext import LAYOUT

ABSENT = ("mmcv", "mmcv.cnn", "mmcv.cnn.bricks", "mmcv.cnn.utils", "mmcv.cnn.utils.weight_init", "mmcv.runner", "mmseg",
          "mmseg.models", "mmseg.models.builder")  # fmt: skip


def mscan():
    """The authors' file with stand-ins for the packages it imports, which it uses for a module class, a norm and a register."""

    class BaseModule(nn.Module):
        def __init__(self, init_cfg=None):
            super().__init__()

    class Register:
        register_module = staticmethod(lambda: lambda cls: cls)

    parts = {
        "BACKBONES": Register,
        "BaseModule": BaseModule,
        "DropPath": nn.Identity,  # the rate is 0
        "build_norm_layer": lambda config, channels: ("norm", nn.BatchNorm2d(channels)),
        "constant_init": None,  # weights are drawn afterwards
        "normal_init": None,
        "trunc_normal_init": None,
    }
    kept = {name: sys.modules.get(name) for name in ABSENT}
    for name in ABSENT:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(parts)
    try:
        return checkout("SegNeXt", "mmseg/models/backbones/mscan.py").MSCAN
    finally:
        for name, module in kept.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def official():
    class Classifier(mscan()):
        def __init__(self):
            super().__init__(embed_dims=[32, 64, 160, 256], mlp_ratios=[8, 8, 4, 4], depths=[3, 3, 5, 2])
            self.head = nn.Linear(256, CLASSES)

        def forward(self, image):
            return self.head(super().forward(image)[-1].mean((2, 3)))

    return Classifier()


CASES = [Case("segnext-official", "Visual-Attention-Network/SegNeXt, mscan.py, MSCAN-T", official, "tiny", renamed(LAYOUT))]
