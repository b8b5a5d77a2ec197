"""SegNeXt of the authors and mmsegmentation: the encoder as a classifier, and the whole segmentation networks."""

import types

import torch
from recording import CLASSES, Case, checkout
from torch import nn
from torch.nn import functional as F

from references import _openmmlab

MICRO = {"embed_dims": [16, 32, 80, 128], "mlp_ratios": [8, 8, 4, 4], "depths": [2, 2, 3, 2]}


class BaseModule(nn.Module):
    """Replaces mmcv's class."""

    def __init__(self, init_cfg=None):
        super().__init__()


class ConvModule(nn.Module):
    """Replaces mmcv's class: convolution, with a bias if no norm follows; group norm; ReLU."""

    def __init__(self, in_channels, out_channels, kernel, conv_cfg=None, norm_cfg=None, act_cfg=None):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, bias=norm_cfg is None)
        self.gn = nn.GroupNorm(32, out_channels) if norm_cfg else None
        self.act = bool(act_cfg)

    def forward(self, x):
        x = self.conv(x) if self.gn is None else self.gn(self.conv(x))
        return x.relu() if self.act else x


class BaseDecodeHead(nn.Module):
    """Replaces mmseg's class, without dropout."""

    conv_cfg, norm_cfg, act_cfg, align_corners = None, {"type": "GN"}, {"type": "ReLU"}, False

    def __init__(self, in_channels, channels, input_transform, norm_cfg):
        super().__init__()
        self.in_channels, self.channels = in_channels, channels
        self.conv_seg = nn.Conv2d(channels, CLASSES, 1)
        self.cls_seg = self.conv_seg.forward

    def _transform_inputs(self, maps):
        return maps[1:]


def official(file):
    """Imports a module of the authors, with replacements for the packages that it imports."""
    register = types.SimpleNamespace(register_module=lambda: lambda cls: cls)
    parts = {
        "BACKBONES": register,
        "HEADS": register,
        "BaseModule": BaseModule,
        "BaseDecodeHead": BaseDecodeHead,
        "ConvModule": ConvModule,
        "DropPath": nn.Identity,  # its rate is 0
        "build_norm_layer": lambda config, channels: ("norm", nn.BatchNorm2d(channels)),
        "resize": F.interpolate,
        "constant_init": None,  # weights are drawn later
        "normal_init": None,
        "trunc_normal_init": None,
    }
    names = ("mmcv", "mmcv.cnn", "mmcv.cnn.bricks", "mmcv.cnn.utils", "mmcv.cnn.utils.weight_init", "mmcv.runner", "mmseg", "mmseg.ops",
             "mmseg.models", "mmseg.models.builder", "mmseg.models.decode_heads", "mmseg.models.decode_heads.decode_head")  # fmt: skip
    with _openmmlab.replaced_packages(names, **parts):
        return checkout("SegNeXt", f"mmseg/models/{file}.py", f"mmseg.models.{file.replace('/', '.')}")


def encoder():
    return official("backbones/mscan").MSCAN(**MICRO)


class Classifier(nn.Module):
    """The encoder with a last layer, which the authors do not publish."""

    def __init__(self, net):
        super().__init__()
        self.__dict__["net"] = net
        self._modules.update(net._modules)
        self.head = nn.Linear(128, CLASSES)

    def forward(self, image):
        return self.head(self.net(image)[-1].mean((2, 3)))


def bases(channels, rank, count):
    """Initial bases of the factorization."""
    return torch.rand(count, channels, rank, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def with_fixed_bases(net, channels, rank):
    """A segmentation network whose factorization starts from `bases`."""
    net.decode_head.hamburger.ham._build_bases = lambda count, *sizes, **device: F.normalize(bases(channels, rank, count), dim=1)
    return net


def segmenter(channels, rank):
    net = nn.Module()
    net.backbone = encoder()
    module = official("decode_heads/ham_head")
    options = {"in_channels": MICRO["embed_dims"][1:], "channels": channels, "norm_cfg": {"type": "GN"}}
    net.decode_head = module.LightHamHead(channels, {"MD_R": rank}, **options)
    return with_fixed_bases(net, channels, rank)


def mmseg_encoder():
    return _openmmlab.mmseg().backbones.MSCAN(**MICRO, norm_cfg={"type": "BN"})


def mmseg_segmenter(channels, rank):
    net = nn.Module()
    net.backbone = mmseg_encoder()
    net.decode_head = _openmmlab.mmseg().decode_heads.LightHamHead(
        channels, {"MD_R": rank}, in_channels=MICRO["embed_dims"][1:], in_index=[1, 2, 3], channels=channels, num_classes=CLASSES,
        dropout_ratio=0.0, norm_cfg={"type": "GN", "num_groups": 32}, align_corners=False,
    )  # fmt: skip
    return with_fixed_bases(net, channels, rank)


def pixels(logits):
    """Some of the pixels: (B, classes, h, w) -> (B, N, classes)."""
    return logits[:, :, ::3, ::3].flatten(2).transpose(1, 2)


def whole(name, source, build, channels, rank):
    return Case(
        f"segnext-{name}",
        source,
        lambda: build(channels, rank),
        "micro",
        options={"task": "seg", "head": "hamburger", "head_options": {"dropout": 0.0}},
        sizes=((96, 136),),
        train_size=(64, 96),
        theirs=lambda net, image: pixels(net.decode_head(net.backbone(image))),
        ours=lambda net, image: pixels(net.head(net.backbone(image), bases(channels, net.head.hamburger.ham.rank, len(image)))),
    )


AUTHORS, MMSEG = "Visual-Attention-Network/SegNeXt, mscan.py", "mmsegmentation MSCAN"
CASES = [
    Case("segnext-official", AUTHORS, lambda: Classifier(encoder()), "micro"),
    whole("official-segmenter", f"{AUTHORS} and ham_head.py", segmenter, 256, 16),
    whole("official-segmenter-wide", f"{AUTHORS} and ham_head.py, the head of SegNeXt-B", segmenter, 512, 64),
    Case("segnext-openmmlab", MMSEG, lambda: Classifier(mmseg_encoder()), "micro"),
    whole("openmmlab-segmenter", f"{MMSEG} and LightHamHead", mmseg_segmenter, 256, 16),
]
