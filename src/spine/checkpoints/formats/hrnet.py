"""HRNet: tensor names of the authors, timm and OpenMMLab."""

from __future__ import annotations

from dataclasses import replace

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

LAYOUTS = with_input_settings(IMAGENET, (SSLD, OFFICIAL, TIMM, OPENMMLAB, MMPOSE_0))
