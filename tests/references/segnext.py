"""SegNeXt: the authors' encoder as a classifier, and their whole segmenter."""

import sys
import types
from unittest import mock

import torch
from recording import CLASSES, Case, checkout, renamed
from torch import nn
from torch.nn import functional as F

from spine.backbones.segnext import LAYOUT

TINY = {"embed_dims": [32, 64, 160, 256], "mlp_ratios": [8, 8, 4, 4], "depths": [3, 3, 5, 2]}


class BaseModule(nn.Module):
    """Stands in for mmcv's."""

    def __init__(self, init_cfg=None):
        super().__init__()


class ConvModule(nn.Module):
    """Stands in for mmcv's: convolution, with a bias where no norm follows; group norm; ReLU."""

    def __init__(self, in_channels, out_channels, kernel, conv_cfg=None, norm_cfg=None, act_cfg=None):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, bias=norm_cfg is None)
        self.gn = nn.GroupNorm(32, out_channels) if norm_cfg else None
        self.act = bool(act_cfg)

    def forward(self, x):
        x = self.conv(x) if self.gn is None else self.gn(self.conv(x))
        return x.relu() if self.act else x


class BaseDecodeHead(nn.Module):
    """Stands in for mmseg's, without dropout."""

    conv_cfg, norm_cfg, act_cfg, align_corners = None, {"type": "GN"}, {"type": "ReLU"}, False

    def __init__(self, in_channels, channels, input_transform, norm_cfg):
        super().__init__()
        self.in_channels, self.channels = in_channels, channels
        self.conv_seg = nn.Conv2d(channels, CLASSES, 1)
        self.cls_seg = self.conv_seg.forward

    def _transform_inputs(self, maps):
        return maps[1:]


def official(file):
    """A module of the authors', with stand-ins for the packages it imports."""
    register = types.SimpleNamespace(register_module=lambda: lambda cls: cls)
    parts = {
        "BACKBONES": register,
        "HEADS": register,
        "BaseModule": BaseModule,
        "BaseDecodeHead": BaseDecodeHead,
        "ConvModule": ConvModule,
        "DropPath": nn.Identity,  # the rate is 0
        "build_norm_layer": lambda config, channels: ("norm", nn.BatchNorm2d(channels)),
        "resize": F.interpolate,
        "constant_init": None,  # weights are drawn afterwards
        "normal_init": None,
        "trunc_normal_init": None,
    }
    names = ("mmcv", "mmcv.cnn", "mmcv.cnn.bricks", "mmcv.cnn.utils", "mmcv.cnn.utils.weight_init", "mmcv.runner", "mmseg", "mmseg.ops",
             "mmseg.models", "mmseg.models.builder", "mmseg.models.decode_heads", "mmseg.models.decode_heads.decode_head")  # fmt: skip
    absent = {name: types.ModuleType(name) for name in names}
    for module in absent.values():
        vars(module).update(parts)
    with mock.patch.dict(sys.modules, absent):
        return checkout("SegNeXt", f"mmseg/models/{file}.py", f"mmseg.models.{file.replace('/', '.')}")


def classifier():
    class Classifier(official("backbones/mscan").MSCAN):
        def __init__(self):
            super().__init__(**TINY)
            self.head = nn.Linear(256, CLASSES)

        def forward(self, image):
            return self.head(super().forward(image)[-1].mean((2, 3)))

    return Classifier()


def bases(count):
    """Where the factorisation starts."""
    return torch.rand(count, 256, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def segmenter():
    net = nn.Module()
    net.backbone = official("backbones/mscan").MSCAN(**TINY)
    module = official("decode_heads/ham_head")
    net.decode_head = module.LightHamHead(256, {"MD_R": 16}, in_channels=[64, 160, 256], channels=256, norm_cfg={"type": "GN"})
    net.decode_head.hamburger.ham._build_bases = lambda count, *sizes, cuda: F.normalize(bases(count), dim=1)
    return net


def pixels(logits):
    """(B, classes, h, w) -> some of the pixels (B, N, classes)."""
    return logits[:, :, ::3, ::3].flatten(2).transpose(1, 2)


CASES = [
    Case("segnext-official", "Visual-Attention-Network/SegNeXt, mscan.py, MSCAN-T", classifier, "tiny", renamed(LAYOUT)),
    Case(
        "segnext-official-segmenter",
        "Visual-Attention-Network/SegNeXt, mscan.py and ham_head.py, SegNeXt-T",
        segmenter,
        "tiny",
        renamed(LAYOUT),
        {"task": "seg", "head": "hamburger", "head_options": {"dropout": 0.0}},
        sizes=((128, 128), (96, 136)),
        theirs=lambda net, image: pixels(net.decode_head(net.backbone(image))),
        ours=lambda net, image: pixels(net.head(net.backbone(image), bases(len(image)))),
    ),
]
