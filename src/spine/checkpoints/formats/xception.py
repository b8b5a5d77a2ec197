"""Xception: tensor names of Cadene's port of Keras's weights, and timm."""

from __future__ import annotations

from dataclasses import replace

from spine.checkpoints.input_settings import HALF, InputSettings
from spine.checkpoints.mapping import Layout, Rule

INPUT = InputSettings((299, 299), 0.8975, "bicubic", HALF.mean, HALF.std)
TRUNK = (
    Rule("block*.**", "backbone.blocks.*.**"),
    Rule("conv*.**", "backbone.conv*.**"),
    Rule("bn*.*", "backbone.bn*.*"),
)

# Names of Cadene's port, which timm has kept. The classifier is `fc` in the published file, and `last_linear` in networks that
# his code builds.
OFFICIAL = Layout("official", (*TRUNK, Rule("fc.*", "head.linear.*")), forbidden=("last_linear.weight",), input_settings=INPUT)
CADENE = Layout(
    "official", (*TRUNK, Rule("last_linear.*", "head.linear.*")), required=("last_linear.weight",), input_settings=INPUT
)
TIMM = replace(OFFICIAL, publisher="timm")

LAYOUTS = (OFFICIAL, CADENE, TIMM)
