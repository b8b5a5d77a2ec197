"""ResNeSt as OpenMMLab publishes it; timm has kept the authors' names."""

from __future__ import annotations

import dataclasses

from spine.checkpoints.input_settings import IMAGENET
from spine.checkpoints.mapping import Layout, Rule, with_input

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


OTHER_PUBLISHERS = (OPENMMLAB,)


# The authors' names. Those of resnest50_fast_2s1x64d and resnest50 are the same, in the same shapes: the first must be asked for.
OFFICIAL = Layout(
    "official",
    (
        Rule("conv1.**", "backbone.conv1.**"),
        Rule("bn1.*", "backbone.bn1.*"),
        Rule("layer*.**", "backbone.stages.layer*.**"),
        Rule("fc.*", "head.linear.*"),
    ),
)


TIMM = dataclasses.replace(OFFICIAL, publisher="timm")


LAYOUTS = with_input(IMAGENET, (OFFICIAL, TIMM, *OTHER_PUBLISHERS))
