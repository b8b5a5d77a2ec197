"""PublishedWeights weight files of shufflenet_v2."""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights, hashed

PYTORCH = "https://download.pytorch.org/models/shufflenetv2_"


# The authors' files, those of the large networks too, lie on OneDrive and BaiduYun alone, without an address of their own.
WEIGHTS: dict[str, dict[str, PublishedWeights]] = {
    variant: {"imagenet1k": hashed(f"{PYTORCH}{file}.pth", "BSD-3-Clause", f"ImageNet-1k top-1 {top1}", crop_pct=224 / resize)}
    for variant, file, top1, resize in (
        ("x0_5", "x0.5-f707e7126e", 60.552, 256),
        ("x1_0", "x1-5666bf0f80", 69.362, 256),
        ("x1_5", "x1_5-3c479a10", 72.996, 232),
        ("x2_0", "x2_0-8be3c8ee", 76.23, 232),
    )
}
MMLAB = "https://download.openmmlab.com/mmclassification/v0/shufflenet_v2/shufflenet_v2_batch1024_imagenet_20200812-"
WEIGHTS["x1_0"]["openmmlab"] = hashed(f"{MMLAB}5bf4721e.pth", "Apache-2.0", "ImageNet-1k top-1 69.55")
