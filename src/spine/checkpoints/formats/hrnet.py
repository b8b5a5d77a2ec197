"""HRNet: tensor names of the authors, timm and OpenMMLab."""

from __future__ import annotations

from dataclasses import replace

from spine.checkpoints.formats._common import conv_norm
from spine.checkpoints.formats._segmentation import JOIN, JOIN_TARGETS, OPENMMLAB_OCR, fcn_options
from spine.checkpoints.input_settings import IMAGENET
from spine.checkpoints.mapping import Layout, Rule, with_input_settings

TRUNK = ("conv*.*", "bn*.*", "layer1.**", "transition*.**", "stage*.**")  # the same names at all publishers

# Classification networks (with their own branch and `classifier`) and pose networks (`final_layer`, a 1x1 convolution).
OFFICIAL = Layout(
    "official",
    (
        Rule("incre_modules.**", "backbone.pooling.incre_modules.**"),
        Rule("downsamp_modules.**", "backbone.pooling.downsamp_modules.**"),
        Rule("final_layer.*.*", "backbone.pooling.final_layer.*.*"),
        Rule("final_layer.*", "head.final_layer.*"),
        Rule("classifier.*", "head.linear.*"),
        *(Rule(part, f"backbone.{part}") for part in TRUNK),
    ),
)
TIMM = replace(OFFICIAL, publisher="timm")
SSLD = replace(  # convolutions of the classification branch without biases
    TIMM, options={"head_conv_bias": False}, required=("final_layer.0.weight",), forbidden=("final_layer.0.bias",)
)
OPENMMLAB = Layout(  # mmpretrain's classifiers, and the pose networks of mmpose from version 1
    "openmmlab",
    (
        *(Rule(f"backbone.{part}", f"backbone.{part}") for part in TRUNK),
        Rule("neck.0.increase_layers.**", "backbone.pooling.incre_modules.**"),
        Rule("neck.0.downsample_layers.*.conv.weight", "backbone.pooling.downsamp_modules.*.0.weight"),
        Rule("neck.0.downsample_layers.*.bn.*", "backbone.pooling.downsamp_modules.*.1.*"),
        Rule("neck.0.final_layer.conv.weight", "backbone.pooling.final_layer.0.weight"),
        Rule("neck.0.final_layer.bn.*", "backbone.pooling.final_layer.1.*"),
        Rule("head.fc.*", "head.linear.*"),
        Rule("head.final_layer.*", "head.final_layer.*"),
        Rule("head.conv_layers.0.*", "head.join.*"),
        Rule("head.conv_layers.1.*", "head.norm.*"),
    ),
    options={"head_conv_bias": False},
    wrapper="state_dict",
)
MMPOSE_0 = replace(  # mmpose before version 1
    OPENMMLAB, rules=(Rule("keypoint_head.final_layer.*", "head.final_layer.*"), *OPENMMLAB.rules)
)

# The authors' segmentation networks. No tensor tells whether the corners of maps are aligned: they are in those of ADE20K and
# COCO-Stuff (`layout=official_aligned`) and with OCR, not in those of Cityscapes, PASCAL-Context and LIP.
SEGMENTER = Layout(
    "official",
    (
        Rule("last_layer.0.weight", JOIN_TARGETS, JOIN),
        Rule("last_layer.0.bias", "head.join.0.bias"),
        Rule("last_layer.1.*", "head.join_norm.0.*"),
        Rule("last_layer.3.*", "head.classifier.*"),
        *(Rule(part, f"backbone.{part}") for part in TRUNK),
    ),
    options={"upsampling": "bilinear"},
    head_options=fcn_options,
    required=("last_layer.0.weight",),
    wrapper="state_dict",
)
SEGMENTER_ALIGNED = replace(
    SEGMENTER,
    publisher="official_aligned",
    options={"upsampling": "bilinear_aligned"},
    head_options=lambda state: {**fcn_options(state), "align_corners": True},
)
OBJECTS = "ocr_distri_head.object_context_block"
PROJECTIONS = {"f_pixel": "query", "f_object": "key"}  # two convolutions each
OCR = Layout(
    "official",
    (
        *(Rule(f"aux_head.{i}.*", f"head.regions.{i}.*") for i in (0, 1, 3)),
        *(Rule(f"conv3x3_ocr.{i}.*", f"head.pixels.{i}.*") for i in (0, 1)),
        *(
            rule
            for source, target in PROJECTIONS.items()
            for i in (0, 1)
            for rule in conv_norm(f"{OBJECTS}.{source}", f"head.{target}.{i}", names=(f"{2 * i}", f"{2 * i + 1}.0"))
        ),
        *conv_norm(f"{OBJECTS}.f_down", "head.value", names=("0", "1.0")),
        *conv_norm(f"{OBJECTS}.f_up", "head.context", names=("0", "1.0")),
        *conv_norm("ocr_distri_head.conv_bn_dropout", "head.fuse", names=("0", "1.0")),
        Rule("cls_head.*", "head.classifier.*"),
        *(Rule(part, f"backbone.{part}") for part in TRUNK),
    ),
    options={"upsampling": "bilinear_aligned"},
    head_options={"align_corners": True, "conv_bias": True},
    required=("conv3x3_ocr.0.weight",),
    wrapper="state_dict",
)
OPENMMLAB_SEGMENTER = Layout(
    "openmmlab",
    (
        *(Rule(f"backbone.{part}", f"backbone.{part}") for part in TRUNK),
        Rule("decode_head.convs.0.conv.weight", JOIN_TARGETS, JOIN),
        Rule("decode_head.convs.0.bn.*", "head.join_norm.0.*"),
        Rule("decode_head.conv_seg.*", "head.classifier.*"),
    ),
    options={"upsampling": "bilinear"},
    head_options=fcn_options,
    required=("decode_head.convs.0.conv.weight",),
    wrapper="state_dict",
)
MMSEG_OCR = Layout(
    "openmmlab",
    (*(Rule(f"backbone.{part}", f"backbone.{part}") for part in TRUNK), *OPENMMLAB_OCR),
    options={"upsampling": "bilinear"},
    head_options={"align_corners": False, "conv_bias": False},
    required=("decode_head.1.bottleneck.conv.weight",),
    wrapper="state_dict",
)

LAYOUTS = with_input_settings(
    IMAGENET,
    (SSLD, OFFICIAL, SEGMENTER, SEGMENTER_ALIGNED, OCR, TIMM, OPENMMLAB, MMPOSE_0, OPENMMLAB_SEGMENTER, MMSEG_OCR),
)
