"""ShuffleNet V2 of the authors (small and large), torchvision and mmpretrain."""

import sys
from unittest import mock

from recording import CLASSES, Case, checkout
from torch import nn

from references import _openmmlab as openmmlab


def authors():
    with mock.patch.dict(sys.modules, {"blocks": checkout("ShuffleNet-Series", "ShuffleNetV2/blocks.py")}):
        net = checkout("ShuffleNet-Series", "ShuffleNetV2/network.py").ShuffleNetV2(n_class=CLASSES, model_size="0.5x")
    net.globalpool = nn.AdaptiveAvgPool2d(1)  # theirs is 7x7, for images of 224 px only
    return net


def authors_large():
    """Two of its layers have two names each. The second one is loaded, as in our layout."""
    net = checkout("ShuffleNet-Series", "ShuffleNetV2.Large/network.py").ShuffleNetV2(n_class=CLASSES)
    net.globalpool = nn.AdaptiveAvgPool2d(1)
    return net


def torchvision():
    from torchvision.models import ShuffleNetV2

    return ShuffleNetV2([4, 8, 4], [16, 32, 64, 128, 256], num_classes=CLASSES)


def mmpretrain():
    head = {"type": "LinearClsHead", "num_classes": CLASSES, "in_channels": 1024}
    backbone = {"type": "ShuffleNetV2", "widen_factor": 0.5}
    return openmmlab.classifier(backbone, head, {"type": "GlobalAveragePooling"})


CASES = [
    Case("shufflenet_v2-official", "megvii-model/ShuffleNet-Series ShuffleNetV2 0.5x", authors, "x0_5"),
    Case(
        "shufflenet_v2-official-large",
        "megvii-model/ShuffleNet-Series ShuffleNetV2.Large",
        authors_large,
        "large_164_se",
        sizes=((64, 96),),
        train_size=None,  # in training it has three more classifiers
        slow=True,
    ),
    Case("shufflenet_v2-torchvision", "torchvision ShuffleNetV2", torchvision, "micro"),
    Case("shufflenet_v2-openmmlab", "mmpretrain ShuffleNetV2", mmpretrain, "x0_5", theirs=openmmlab.logits),
]
