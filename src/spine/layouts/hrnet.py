"""HRNet as OpenMMLab publishes it: mmpretrain's classifiers, and mmpose's networks of both its ages. timm has the authors' names."""

from __future__ import annotations

import dataclasses

from spine.names import Layout, Row

TRUNK = ("conv*.*", "bn*.*", "layer1.**", "transition*.**", "stage*.**")  # the same everywhere

OPENMMLAB = Layout(
    "openmmlab",
    (
        *(Row(f"backbone.{part}", f"backbone.{part}") for part in TRUNK),
        Row("neck.0.increase_layers.**", "backbone.pooling.incre_modules.**"),
        Row("neck.0.downsample_layers.*.conv.weight", "backbone.pooling.downsamp_modules.*.0.weight"),
        Row("neck.0.downsample_layers.*.bn.*", "backbone.pooling.downsamp_modules.*.1.*"),
        Row("neck.0.final_layer.conv.weight", "backbone.pooling.final_layer.0.weight"),
        Row("neck.0.final_layer.bn.*", "backbone.pooling.final_layer.1.*"),
        Row("head.fc.*", "head.linear.*"),
        Row("head.final_layer.*", "head.final_layer.*"),
    ),
    options={"head_conv_bias": False},
    wrapper="state_dict",
)
MMPOSE_0 = dataclasses.replace(OPENMMLAB, rows=(Row("keypoint_head.final_layer.*", "head.final_layer.*"), *OPENMMLAB.rows))

LAYOUTS = (OPENMMLAB, MMPOSE_0)
