"""xception: layouts of its publishers."""

from __future__ import annotations

import dataclasses

from spine.checkpoints.input_settings import HALF, InputSettings
from spine.checkpoints.mapping import Layout, Rule

# The names of Cadene's port, which timm kept; the last layer is `fc` in the published file and `last_linear` in networks of his code.
ROWS = (
    Rule("block*.**", "backbone.blocks.*.**"),
    Rule("conv*.**", "backbone.conv*.**"),
    Rule("bn*.*", "backbone.bn*.*"),
)


INPUT = InputSettings((299, 299), 0.8975, "bicubic", HALF.mean, HALF.std)


OFFICIAL = Layout("official", (*ROWS, Rule("fc.*", "head.linear.*")), forbidden=("last_linear.weight",), input=INPUT)


CADENE = Layout("official", (*ROWS, Rule("last_linear.*", "head.linear.*")), required=("last_linear.weight",), input=INPUT)


TIMM = dataclasses.replace(OFFICIAL, publisher="timm")


LAYOUTS = (OFFICIAL, CADENE, TIMM)
