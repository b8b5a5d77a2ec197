"""PublishedWeights weight files of mobilenet_v3."""

from __future__ import annotations

from typing import Any

from spine.checkpoints.weight_table import PublishedWeights, hashed

PYTORCH = "https://download.pytorch.org/models/mobilenet_v3_"


WIGHTMAN = "https://github.com/rwightman/pytorch-image-models/releases/download/"


MMLAB = "https://download.openmmlab.com/mmclassification/v0/mobilenet_v3/mobilenet-v3-"


HUB = "https://huggingface.co/timm/mobilenetv3_large_100.ra4_e3600_r224_in1k/resolve/main/model.safetensors"


HALF: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def of_torchvision(file: str, top1: float, **facts: Any) -> PublishedWeights:
    """A row of torchvision's."""
    return hashed(f"{PYTORCH}{file}.pth", "BSD-3-Clause", f"ImageNet-1k top-1 {top1}", **facts)


def of_timm(file: str, top1: float, **facts: Any) -> PublishedWeights:
    """A row of timm's own trainings."""
    facts.setdefault("interpolation", "bicubic")
    return hashed(f"{WIGHTMAN}v0.1-weights/{file}.pth", "Apache-2.0", f"ImageNet-1k top-1 {top1}", **facts)


def of_authors(file: str, top1: float) -> PublishedWeights:
    """The authors' TensorFlow weights, as timm has converted them."""
    return of_timm(f"tf_mobilenetv3_{file}", top1, layout="timm_tf", interpolation="bilinear", **HALF)


def of_miil(file: str, metric: str) -> PublishedWeights:
    """Alibaba's from ImageNet-21k, in timm's release; their images are not normalised."""
    address = f"{WIGHTMAN}v0.1-tresnet/mobilenetv3_large_100_{file}.pth"
    return hashed(address, "Apache-2.0", metric, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


# The authors' own files are TensorFlow's. Of torchvision's two for Large the first is what it takes by default.
WEIGHTS: dict[str, dict[str, PublishedWeights]] = {
    "large_100": {
        "imagenet1k": of_torchvision("large-5c1a4163", 75.274, crop_pct=224 / 232),
        "torchvision_v1": of_torchvision("large-8738ca79", 74.042),
        "timm": of_timm("mobilenetv3_large_100_ra-f55367f5", 75.78),
        "timm_ra4": PublishedWeights(
            HUB, "Apache-2.0", "ImageNet-1k top-1 76.31", crop_pct=0.95, interpolation="bicubic", **HALF
        ),
        "timm_tf": of_authors("large_100-427764d5", 75.51),
        "imagenet22k_1k": of_miil("1k_miil_78_0-66471c13", "ImageNet-1k top-1 77.92"),
        "imagenet22k": of_miil("in21k_miil-d71cc17b", "a start for fine-tuning, 11221 classes of ImageNet-21k-P"),
        "openmmlab": hashed(f"{MMLAB}large_8xb128_in1k_20221114-0ed9ed9a.pth", "Apache-2.0", "ImageNet-1k top-1 73.49"),
    },
    "large_075": {"imagenet1k": of_authors("large_075-150ee8b0", 73.44)},
    "large_minimal_100": {"imagenet1k": of_authors("large_minimal_100-8596ae28", 72.27)},
    "small_100": {
        "imagenet1k": of_torchvision("small-047dcff4", 67.668),
        "timm": of_timm("mobilenetv3_small_100_lamb-266a294c", 67.66),
        "timm_tf": of_authors("small_100-37f49e2b", 67.92),
        "openmmlab": hashed(f"{MMLAB}small_8xb128_in1k_20221114-bd1bfcde.pth", "Apache-2.0", "ImageNet-1k top-1 66.68"),
    },
    "small_075": {
        "imagenet1k": of_authors("small_075-da427f52", 65.71),
        "timm": of_timm("mobilenetv3_small_075_lambc-384766db", 65.23),
    },
    "small_050": {"imagenet1k": of_timm("mobilenetv3_small_050_lambc-4b7bbe87", 57.91)},
    "small_minimal_100": {"imagenet1k": of_authors("small_minimal_100-922a7843", 62.89)},
}
