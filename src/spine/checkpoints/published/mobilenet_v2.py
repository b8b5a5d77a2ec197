"""PublishedWeights weight files of mobilenet_v2."""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights, hashed

PYTORCH = "https://download.pytorch.org/models/mobilenet_v2-"


WIGHTMAN = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/mobilenetv2_"


MMLAB = "https://download.openmmlab.com/mmclassification/v0/mobilenet_v2/mobilenet_v2_batch256_imagenet_20200708-"


# The authors' files are TensorFlow's alone. Of torchvision's two the first is what it takes by default.
WEIGHTS: dict[str, dict[str, PublishedWeights]] = {
    "w050": {
        "imagenet1k": hashed(f"{WIGHTMAN}050-3d30d450.pth", "Apache-2.0", "ImageNet-1k top-1 65.95", interpolation="bicubic")
    },
    "w100": {
        "imagenet1k": hashed(f"{PYTORCH}7ebf99e0.pth", "BSD-3-Clause", "ImageNet-1k top-1 72.154", crop_pct=224 / 232),
        "torchvision_v1": hashed(f"{PYTORCH}b0353104.pth", "BSD-3-Clause", "ImageNet-1k top-1 71.878"),
        "timm": hashed(f"{WIGHTMAN}100_ra-b33bc2c4.pth", "Apache-2.0", "ImageNet-1k top-1 72.91", interpolation="bicubic"),
        "openmmlab": hashed(f"{MMLAB}3b2dc3af.pth", "Apache-2.0", "ImageNet-1k top-1 71.86"),
    },
    "w140": {
        "imagenet1k": hashed(f"{WIGHTMAN}140_ra-21a4e913.pth", "Apache-2.0", "ImageNet-1k top-1 76.52", interpolation="bicubic")
    },
}
