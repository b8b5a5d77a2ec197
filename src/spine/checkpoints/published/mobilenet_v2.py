"""MobileNetV2: weight files of torchvision, timm and OpenMMLab. The authors published TensorFlow files only."""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights, hash_in_name

PYTORCH = "https://download.pytorch.org/models/mobilenet_v2-"
TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/mobilenetv2_"
OPENMMLAB = "https://download.openmmlab.com/mmclassification/v0/mobilenet_v2/mobilenet_v2_batch256_imagenet_20200708-"


def timm(file: str, top1: float) -> PublishedWeights:
    """A file of timm."""
    return hash_in_name(f"{TIMM}{file}.pth", "Apache-2.0", f"ImageNet-1k top-1 {top1}", interpolation="bicubic")


WEIGHTS = {
    "w050": {"imagenet1k": timm("050-3d30d450", 65.95)},
    "w110d": {"imagenet1k": timm("110d_ra-77090ade", 75.052)},
    "w120d": {"imagenet1k": timm("120d_ra-5987e2ed", 77.294)},
    "w100": {
        # torchvision's default
        "imagenet1k": hash_in_name(f"{PYTORCH}7ebf99e0.pth", "BSD-3-Clause", "ImageNet-1k top-1 72.154", crop_pct=224 / 232),
        "torchvision_v1": hash_in_name(f"{PYTORCH}b0353104.pth", "BSD-3-Clause", "ImageNet-1k top-1 71.878"),
        "timm": timm("100_ra-b33bc2c4", 72.91),
        "openmmlab": hash_in_name(f"{OPENMMLAB}3b2dc3af.pth", "Apache-2.0", "ImageNet-1k top-1 71.86"),
    },
    "w140": {"imagenet1k": timm("140_ra-21a4e913", 76.52)},
}
