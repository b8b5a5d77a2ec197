"""ShuffleNet: the authors' code."""

import sys
from unittest import mock

from recording import CLASSES, Case, checkout, renamed
from torch import nn

from spine.backbones.shufflenet_v1 import LAYOUT


def authors(size, group):
    with mock.patch.dict(sys.modules, {"blocks": checkout("ShuffleNet-Series", "ShuffleNetV1/blocks.py")}):
        net = checkout("ShuffleNet-Series", "ShuffleNetV1/network.py").ShuffleNetV1(n_class=CLASSES, model_size=size, group=group)
    net.globalpool = nn.AdaptiveAvgPool2d(1)  # theirs is 7x7, for images of 224 px only
    return net


CASES = [
    Case(
        f"shufflenet_v1-authors-{variant}",
        f"megvii-model/ShuffleNet-Series ShuffleNetV1 {size}, group {group}",
        lambda size=size, group=group: authors(size, group),
        variant,
        renamed(LAYOUT),
        options={"head_options": {"bias": False}},
    )
    for variant, size, group in (("x1_0_g3", "1.0x", 3), ("x0_5_g8", "0.5x", 8))
]
