"""ResNeSt: tensor names of the authors, timm and OpenMMLab."""

from __future__ import annotations

from dataclasses import replace

from spine.checkpoints.input_settings import IMAGENET
from spine.checkpoints.mapping import Layout, Rule, with_input_settings

# The tensors of resnest50_fast_2s1x64d and resnest50 have the same names and shapes: for the first, the variant must be given.
OFFICIAL = Layout(
    "official",
    (
        Rule("conv1.**", "backbone.conv1.**"),
        Rule("bn1.*", "backbone.bn1.*"),
        Rule("layer*.**", "backbone.stages.layer*.**"),
        Rule("fc.*", "head.linear.*"),
    ),
)
TIMM = replace(OFFICIAL, publisher="timm")  # the same names
OPENMMLAB = Layout(
    "openmmlab",
    (
        *(Rule(f"backbone.stem.{i}.conv.*", f"backbone.conv1.{3 * i}.*") for i in range(3)),
        *(Rule(f"backbone.stem.{i}.bn.*", f"backbone.conv1.{3 * i + 1}.*") for i in range(2)),
        Rule("backbone.stem.2.bn.*", "backbone.bn1.*"),
        *(Rule(f"backbone.layer1.*.downsample.{i}.*", f"backbone.stages.layer1.*.downsample.{i + 1}.*") for i in range(2)),
        Rule("backbone.layer*.**", "backbone.stages.layer*.**"),
        Rule("head.fc.*", "head.linear.*"),
    ),
    wrapper="state_dict",
)

LAYOUTS = with_input_settings(IMAGENET, (OFFICIAL, TIMM, OPENMMLAB))
