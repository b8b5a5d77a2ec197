"""ShuffleNet V2: weight files of torchvision and OpenMMLab.

The authors' files, including those of the large networks, are on OneDrive and BaiduYun only, without separate addresses.
"""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights, hash_in_name

PYTORCH = "https://download.pytorch.org/models/shufflenetv2_"
OPENMMLAB = "https://download.openmmlab.com/mmclassification/v0/shufflenet_v2/shufflenet_v2_batch1024_imagenet_20200812-"


def torchvision(file: str, top1: float, resized: int) -> PublishedWeights:
    """A file of torchvision. `resized`: image size before the center crop of 224 pixels."""
    return hash_in_name(f"{PYTORCH}{file}.pth", "BSD-3-Clause", f"ImageNet-1k top-1 {top1}", crop_pct=224 / resized)


WEIGHTS = {
    "x0_5": {"imagenet1k": torchvision("x0.5-f707e7126e", 60.552, 256)},
    "x1_0": {
        "imagenet1k": torchvision("x1-5666bf0f80", 69.362, 256),
        "openmmlab": hash_in_name(f"{OPENMMLAB}5bf4721e.pth", "Apache-2.0", "ImageNet-1k top-1 69.55"),
    },
    "x1_5": {"imagenet1k": torchvision("x1_5-3c479a10", 72.996, 232)},
    "x2_0": {"imagenet1k": torchvision("x2_0-8be3c8ee", 76.23, 232)},
}
