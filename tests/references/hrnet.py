"""HRNet of the authors (classification and pose), timm and mmpretrain, and of mmpose, assembled from its parts."""

import sys
import types
from unittest import mock

import numpy as np
from recording import CLASSES, Case, checkout
from torch import nn

from references import _openmmlab, _segmentation


def stages(width, modules, blocks, stem_blocks, stem_width, key=str.upper):
    """Returns the stages of a configuration. W18-small-v1 is in experiments/cls_hrnet_w18_small_v1_*.yaml."""
    found = {}
    for number, count in enumerate((1, *modules), 1):
        stage = {
            "num_modules": count,
            "num_branches": number,
            "block": "BASIC" if number > 1 else "BOTTLENECK",
            "num_blocks": [blocks if number > 1 else stem_blocks] * number,
            "num_channels": [width * 2**i for i in range(number)] if number > 1 else [stem_width],
            "fuse_method": "SUM",
        }
        found[key(f"stage{number}")] = Config({key(name): value for name, value in stage.items()})
    return found


class Config(dict):
    """A dictionary whose keys are also attributes."""

    __getattr__ = dict.__getitem__


SMALL = {"width": 16, "modules": (1, 1, 1), "blocks": 2, "stem_blocks": 1, "stem_width": 32}


def authors():
    """The classifier, which has 1000 classes, is replaced."""
    config = {"MODEL": {"EXTRA": stages(**SMALL)}}
    net = checkout("HRNet-Image-Classification", "lib/models/cls_hrnet.py").HighResolutionNet(config)
    net.classifier = nn.Linear(2048, CLASSES)
    return net


def authors_pose():
    """The first stage, which has four blocks and 64 channels, is made as small as the others."""
    module = checkout("deep-high-resolution-net.pytorch", "lib/models/pose_hrnet.py")
    extra = Config(stages(**SMALL), FINAL_CONV_KERNEL=1, PRETRAINED_LAYERS=["*"])
    net = module.PoseHighResolutionNet(Config(MODEL=Config(EXTRA=extra, NUM_JOINTS=CLASSES)))
    net.inplanes = 64
    net.layer1 = net._make_layer(module.Bottleneck, SMALL["stem_width"], SMALL["stem_blocks"])
    net.transition1 = net._make_transition_layer([4 * SMALL["stem_width"]], [SMALL["width"], 2 * SMALL["width"]])
    return net


def timm(**options):
    import timm

    return timm.create_model("hrnet_w18_small", num_classes=CLASSES, **options)


def mmpretrain():
    return _openmmlab.classifier(
        {"type": "HRNet", "extra": stages(**SMALL, key=str.lower)},
        {"type": "LinearClsHead", "num_classes": CLASSES, "in_channels": 2048},
        [{"type": "HRFuseScales", "in_channels": [16, 32, 64, 128]}, {"type": "GlobalAveragePooling"}],
    )


class MMPose(nn.Module):
    """mmpose has the backbone of mmpretrain. Its head for HRNet is one convolution, whose name depends on the version."""

    def __init__(self, head):
        super().__init__()
        self.backbone = _openmmlab.models().HRNet(extra=stages(**SMALL, key=str.lower), multiscale_output=False)
        self.part = head
        self.add_module(head, nn.ModuleDict({"final_layer": nn.Conv2d(16, CLASSES, 1)}))

    def forward(self, image):
        return getattr(self, self.part)["final_layer"](self.backbone(image)[0])


def authors_dense(file, align_corners):
    """Their module for batch norm of several processes is replaced by PyTorch's."""
    helper = types.ModuleType("hrnet_segmentation.bn_helper")
    helper.BatchNorm2d = helper.BatchNorm2d_class = nn.BatchNorm2d
    helper.relu_inplace = True
    package = types.ModuleType("hrnet_segmentation")
    package.__path__ = []
    sys.modules.update({package.__name__: package, helper.__name__: helper})
    module = checkout("HRNet-Semantic-Segmentation", f"lib/models/{file}.py", f"{package.__name__}.{file}")
    ocr = Config(MID_CHANNELS=64, KEY_CHANNELS=32)
    model = Config(EXTRA=Config(stages(**SMALL), FINAL_CONV_KERNEL=1), ALIGN_CORNERS=align_corners, OCR=ocr)
    with mock.patch.object(np, "int", int, create=True):  # removed from numpy
        net = module.HighResolutionNet(Config(MODEL=model, DATASET=Config(NUM_CLASSES=CLASSES)))
    for part in net.modules():
        if isinstance(part, nn.Dropout2d):
            part.p = 0.0
    return net


def mmseg(*heads):
    """A network with one decode head, or with two in a cascade."""
    net = nn.Module()
    net.backbone = _openmmlab.mmseg().backbones.HRNet(extra=stages(**SMALL, key=str.lower), norm_cfg={"type": "BN"})
    net.decode_head = heads[0] if len(heads) == 1 else nn.ModuleList(heads)
    return net


def mmseg_fcn():
    options = {"input_transform": "resize_concat", "in_index": (0, 1, 2, 3), "kernel_size": 1, "num_convs": 1}
    return _segmentation.head("FCNHead", [16, 32, 64, 128], channels=240, concat_input=False, **options)


def mmseg_ocr():
    options = {"input_transform": "resize_concat", "in_index": (0, 1, 2, 3), "channels": 64, "ocr_channels": 32}
    return mmseg(mmseg_fcn(), _segmentation.head("OCRHead", [16, 32, 64, 128], **options))


def cascade(net, image):
    maps = net.backbone(image)
    first = net.decode_head[0](maps)
    return net.decode_head[1](maps, first), first


def official_loss(net, image):
    outputs = net(image)
    regions, output = outputs if isinstance(outputs, list) else (None, outputs)
    return _segmentation.loss(output, *([] if regions is None else [regions]))


def segmenter(name, source, build, head, align_corners=False, **more):
    options = {"channels": 64, "key_channels": 32, "dropout": 0.0} if head == "ocr" else {"dropout": 0.0}
    layout = {"layout": "official_aligned"} if align_corners else {}
    return _segmentation.whole(
        f"hrnet-{name}", source, build, head, "w18_small_v1", auxiliary=False, head_options=options, **layout, **more
    )


SEGMENTATION = "HRNet/HRNet-Semantic-Segmentation seg_hrnet"
AUTHORS = {"theirs": lambda net, image: net(image), "their_loss": official_loss}
AUTHORS_OCR = {"theirs": lambda net, image: net(image)[1], "their_loss": official_loss}
MMSEG_OCR = {
    "theirs": lambda net, image: cascade(net, image)[0],
    "their_loss": lambda net, image: _segmentation.loss(*cascade(net, image)),
}
POSE = {"options": {"task": "pose"}, "sizes": ((128, 96), (96, 160)), "train_size": (64, 96)}
CASES = [
    Case("hrnet-official", "HRNet/HRNet-Image-Classification cls_hrnet.py", authors, "w18_small_v1"),
    Case(
        "hrnet-official-pose", "leoxiaobin/deep-high-resolution-net.pytorch pose_hrnet.py", authors_pose, "w18_small_v1", **POSE
    ),
    Case("hrnet-timm", "timm hrnet_w18_small", timm, "w18_small_v1"),
    Case("hrnet-timm-ssld", "timm, with the head of hrnet_w18_ssld", lambda: timm(head_conv_bias=False), "w18_small_v1"),
    Case("hrnet-openmmlab", "mmpretrain HRNet", mmpretrain, "w18_small_v1", theirs=_openmmlab.logits),
    Case("hrnet-openmmlab-pose", "mmpose 1's names of its networks", lambda: MMPose("head"), "w18_small_v1", **POSE),
    Case("hrnet-openmmlab-pose_0", "mmpose 0's names of its networks", lambda: MMPose("keypoint_head"), "w18_small_v1", **POSE),
    segmenter("official-fcn", f"{SEGMENTATION}.py", lambda: authors_dense("seg_hrnet", False), "fcn", **AUTHORS),
    segmenter(
        "official-fcn-aligned",
        f"{SEGMENTATION}.py, with aligned corners",
        lambda: authors_dense("seg_hrnet", True),
        "fcn",
        align_corners=True,
        **AUTHORS,
    ),
    segmenter("official-ocr", f"{SEGMENTATION}_ocr.py", lambda: authors_dense("seg_hrnet_ocr", True), "ocr", **AUTHORS_OCR),
    segmenter("openmmlab-fcn", "mmsegmentation HRNet and FCNHead", lambda: mmseg(mmseg_fcn()), "fcn"),
    segmenter("openmmlab-ocr", "mmsegmentation HRNet, FCNHead and OCRHead", mmseg_ocr, "ocr", **MMSEG_OCR),
]
