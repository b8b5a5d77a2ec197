"""ShuffleNet: the weight file of OpenMMLab, which trained one variant.

The authors' files are on OneDrive and BaiduYun only, without separate addresses.
"""

from __future__ import annotations

from spine.checkpoints.weight_table import hash_in_name

OPENMMLAB = "https://download.openmmlab.com/mmclassification/v0/shufflenet_v1/shufflenet_v1_batch1024_imagenet_20200804-"

WEIGHTS = {
    "x1_0_g3": {"imagenet1k": hash_in_name(f"{OPENMMLAB}5d6cec73.pth", "Apache-2.0", "ImageNet-1k top-1 68.13")},
}
