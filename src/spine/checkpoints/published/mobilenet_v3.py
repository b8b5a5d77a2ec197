"""MobileNetV3: weight files of torchvision, timm and OpenMMLab.

The authors published TensorFlow files, which timm has converted.
"""

from __future__ import annotations

from typing import Unpack

from spine.checkpoints.input_settings import HALF_MEAN, HALF_STD
from spine.checkpoints.weight_table import Evaluation, PublishedWeights, hash_in_name

PYTORCH = "https://download.pytorch.org/models/mobilenet_v3_"
TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/"
TIMM_RA4 = "https://huggingface.co/timm/mobilenetv3_large_100.ra4_e3600_r224_in1k/resolve/main/model.safetensors"
OPENMMLAB = "https://download.openmmlab.com/mmclassification/v0/mobilenet_v3/mobilenet-v3-"


def torchvision(file: str, top1: float, **evaluation: Unpack[Evaluation]) -> PublishedWeights:
    """A file of torchvision."""
    return hash_in_name(f"{PYTORCH}{file}.pth", "BSD-3-Clause", f"ImageNet-1k top-1 {top1}", **evaluation)


def timm(file: str, top1: float) -> PublishedWeights:
    """A file trained by timm."""
    address = f"{TIMM}v0.1-weights/{file}.pth"
    return hash_in_name(address, "Apache-2.0", f"ImageNet-1k top-1 {top1}", interpolation="bicubic")


def timm_tf(file: str, top1: float) -> PublishedWeights:
    """The authors' TensorFlow weights, converted by timm."""
    address = f"{TIMM}v0.1-weights/tf_mobilenetv3_{file}.pth"
    metric = f"ImageNet-1k top-1 {top1}"
    return hash_in_name(address, "Apache-2.0", metric, layout="timm_tf", mean=HALF_MEAN, std=HALF_STD)


def miil(file: str, metric: str) -> PublishedWeights:
    """Alibaba's weights from ImageNet-21k, in a release of timm. Their images are not normalized."""
    address = f"{TIMM}v0.1-tresnet/mobilenetv3_large_100_{file}.pth"
    return hash_in_name(address, "Apache-2.0", metric, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def openmmlab(file: str, top1: float) -> PublishedWeights:
    """A file of OpenMMLab."""
    return hash_in_name(f"{OPENMMLAB}{file}.pth", "Apache-2.0", f"ImageNet-1k top-1 {top1}")


WEIGHTS = {
    "large_100": {
        "imagenet1k": torchvision("large-5c1a4163", 75.274, crop_pct=224 / 232),  # torchvision's default
        "torchvision_v1": torchvision("large-8738ca79", 74.042),
        "timm": timm("mobilenetv3_large_100_ra-f55367f5", 75.78),
        "timm_ra4": PublishedWeights(
            TIMM_RA4,
            "Apache-2.0",
            "ImageNet-1k top-1 76.31",
            crop_pct=0.95,
            interpolation="bicubic",
            mean=HALF_MEAN,
            std=HALF_STD,
        ),
        "timm_tf": timm_tf("large_100-427764d5", 75.51),
        "imagenet22k_1k": miil("1k_miil_78_0-66471c13", "ImageNet-1k top-1 77.92"),
        "imagenet22k": miil("in21k_miil-d71cc17b", "weights for fine-tuning, 11221 classes of ImageNet-21k-P"),
        "openmmlab": openmmlab("large_8xb128_in1k_20221114-0ed9ed9a", 73.49),
    },
    "large_075": {"imagenet1k": timm_tf("large_075-150ee8b0", 73.44)},
    "large_minimal_100": {"imagenet1k": timm_tf("large_minimal_100-8596ae28", 72.27)},
    "large_rw": {"imagenet1k": timm("mobilenetv3_100-35495452", 75.634)},
    "small_100": {
        "imagenet1k": torchvision("small-047dcff4", 67.668),
        "timm": timm("mobilenetv3_small_100_lamb-266a294c", 67.66),
        "timm_tf": timm_tf("small_100-37f49e2b", 67.92),
        "openmmlab": openmmlab("small_8xb128_in1k_20221114-bd1bfcde", 66.68),
    },
    "small_075": {
        "imagenet1k": timm_tf("small_075-da427f52", 65.71),
        "timm": timm("mobilenetv3_small_075_lambc-384766db", 65.23),
    },
    "small_050": {"imagenet1k": timm("mobilenetv3_small_050_lambc-4b7bbe87", 57.91)},
    "small_minimal_100": {"imagenet1k": timm_tf("small_minimal_100-922a7843", 62.89)},
}
