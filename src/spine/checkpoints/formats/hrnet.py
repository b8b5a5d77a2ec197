"""HRNet as OpenMMLab publishes it: mmpretrain's classifiers, and mmpose's networks of both its ages. timm has the authors' names."""

from __future__ import annotations

import dataclasses

from spine.checkpoints.input_settings import IMAGENET
from spine.checkpoints.mapping import Layout, Rule, with_input

TRUNK = ("conv*.*", "bn*.*", "layer1.**", "transition*.**", "stage*.**")  # the same everywhere


OPENMMLAB = Layout(
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
    ),
    options={"head_conv_bias": False},
    wrapper="state_dict",
)


MMPOSE_0 = dataclasses.replace(OPENMMLAB, rows=(Rule("keypoint_head.final_layer.*", "head.final_layer.*"), *OPENMMLAB.rows))


OTHER_PUBLISHERS = (OPENMMLAB, MMPOSE_0)


# The authors' names: classification (a branch of its own and `classifier`) and pose (`final_layer` with one 1x1 convolution).
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


TIMM = dataclasses.replace(OFFICIAL, publisher="timm")


SSLD = dataclasses.replace(
    TIMM, options={"head_conv_bias": False}, required=("final_layer.0.weight",), forbidden=("final_layer.0.bias",)
)


LAYOUTS = with_input(IMAGENET, (SSLD, OFFICIAL, TIMM, *OTHER_PUBLISHERS))
