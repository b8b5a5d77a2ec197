"""PublishedWeights weight files of shufflenet_v1."""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights, hashed

MMLAB = "https://download.openmmlab.com/mmclassification/v0/shufflenet_v1/shufflenet_v1_batch1024_imagenet_20200804-"


# The authors' files lie on OneDrive and BaiduYun alone, without an address of their own; OpenMMLab trained one size.
WEIGHTS: dict[str, dict[str, PublishedWeights]] = {
    "x1_0_g3": {"imagenet1k": hashed(f"{MMLAB}5d6cec73.pth", "Apache-2.0", "ImageNet-1k top-1 68.13")},
}
