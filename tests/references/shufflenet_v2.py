"""ShuffleNet V2: the authors' code, small and large."""

import sys
from unittest import mock

from recording import CLASSES, Case, checkout, renamed
from torch import nn

from spine.backbones.shufflenet_v2 import LAYOUT


def authors():
    with mock.patch.dict(sys.modules, {"blocks": checkout("ShuffleNet-Series", "ShuffleNetV2/blocks.py")}):
        net = checkout("ShuffleNet-Series", "ShuffleNetV2/network.py").ShuffleNetV2(n_class=CLASSES, model_size="1.0x")
    net.globalpool = nn.AdaptiveAvgPool2d(1)  # theirs is 7x7, for images of 224 px only
    return net


def authors_large():
    net = checkout("ShuffleNet-Series", "ShuffleNetV2.Large/network.py").ShuffleNetV2(n_class=CLASSES)
    net.globalpool = nn.AdaptiveAvgPool2d(1)
    for name in ("predict_56", "predict_28", "predict_14"):  # classifiers of the training alone
        delattr(net, name)
    for stage in net.features:
        for unit in stage:
            del unit.se_fc1, unit.se_fc2  # held by se_block too
    return net


CASES = [
    Case(
        "shufflenet_v2-authors",
        "megvii-model/ShuffleNet-Series ShuffleNetV2 1.0x",
        authors,
        "x1_0",
        renamed(LAYOUT),
        options={"head_options": {"bias": False}},
    ),
    Case(
        "shufflenet_v2-authors-large",
        "megvii-model/ShuffleNet-Series ShuffleNetV2.Large",
        authors_large,
        "large_164_se",
        renamed(LAYOUT),
        sizes=((64, 96),),
        train_size=None,  # they compute three more classifiers there
        slow=True,
    ),
]
