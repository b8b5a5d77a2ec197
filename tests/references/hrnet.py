"""HRNet: the authors' classification network."""

from recording import CLASSES, Case, checkout, renamed
from torch import nn

from spine.backbones.hrnet import LAYOUT


def authors():
    """W18-small-v1, whose numbers stand in experiments/cls_hrnet_w18_small_v1_*.yaml; its classifier has 1000 classes."""
    stages = {"STAGE1": {"NUM_MODULES": 1, "NUM_BRANCHES": 1, "BLOCK": "BOTTLENECK", "NUM_BLOCKS": [1], "NUM_CHANNELS": [32]}}
    for number in (2, 3, 4):
        stages[f"STAGE{number}"] = {
            "NUM_MODULES": 1,
            "NUM_BRANCHES": number,
            "BLOCK": "BASIC",
            "NUM_BLOCKS": [2] * number,
            "NUM_CHANNELS": [16 * 2**i for i in range(number)],
        }
    for stage in stages.values():
        stage["FUSE_METHOD"] = "SUM"
    net = checkout("HRNet-Image-Classification", "lib/models/cls_hrnet.py").HighResolutionNet({"MODEL": {"EXTRA": stages}})
    net.classifier = nn.Linear(2048, CLASSES)
    return net


CASES = [Case("hrnet-authors", "HRNet/HRNet-Image-Classification cls_hrnet.py", authors, "w18_small_v1", renamed(LAYOUT))]
