"""ShuffleNet of the authors and mmpretrain."""

import sys
from functools import partial
from unittest import mock

from recording import CLASSES, Case, checkout
from torch import nn

from references import _openmmlab as openmmlab


def authors(size, group):
    with mock.patch.dict(sys.modules, {"blocks": checkout("ShuffleNet-Series", "ShuffleNetV1/blocks.py")}):
        net = checkout("ShuffleNet-Series", "ShuffleNetV1/network.py").ShuffleNetV1(n_class=CLASSES, model_size=size, group=group)
    net.globalpool = nn.AdaptiveAvgPool2d(1)  # theirs is 7x7, for images of 224 px only
    return net


def mmpretrain():
    head = {"type": "LinearClsHead", "num_classes": CLASSES, "in_channels": 480}
    backbone = {"type": "ShuffleNetV1", "groups": 3, "widen_factor": 0.5}
    return openmmlab.classifier(backbone, head, {"type": "GlobalAveragePooling"})


CASES = [
    *(
        Case(
            f"shufflenet_v1-official-{variant}",
            f"megvii-model/ShuffleNet-Series ShuffleNetV1 {size}, group {group}",
            partial(authors, size, group),
            variant,
        )
        for variant, size, group in (("x1_0_g3", "1.0x", 3), ("x0_5_g8", "0.5x", 8))
    ),
    Case("shufflenet_v1-openmmlab", "mmpretrain ShuffleNetV1", mmpretrain, "x0_5_g3", theirs=openmmlab.logits),
]
