"""Swin: weight files of the authors and torchvision."""

from __future__ import annotations

from spine.checkpoints.weight_table import SQUASHED, Evaluation, PublishedWeights

ADDRESS = "https://github.com/SwinTransformer/storage/releases/download/v"
AT_224: Evaluation = {"interpolation": "bicubic"}
AT_384: Evaluation = {"image_size": 384, "crop_pct": 1.0, "interpolation": "bicubic", "note": SQUASHED}


def classifiers(file: str, top1: float | None, top1_after_22k: float, release: str = "1.0.0") -> dict[str, PublishedWeights]:
    """The authors' classifiers of one variant (MODELHUB.md of the authors).

    `top1`: on ImageNet-1k, trained on it alone; None if there is no such file. `top1_after_22k`: trained
    on ImageNet-22k, then fine-tuned on ImageNet-1k. `release`: of the files of ImageNet-22k.
    """
    suffix, evaluation = ("_384", AT_384) if file.endswith("384") else ("", AT_224)
    start = f"{ADDRESS}{release}/swin_{file}_22k"
    fine_tuned = f"{start}to1k{'_finetune' if release == '1.0.8' else ''}.pth"
    rows = {}
    if top1 is not None:
        metric = f"ImageNet-1k top-1 {top1}"
        rows[f"imagenet1k{suffix}"] = PublishedWeights(f"{ADDRESS}1.0.0/swin_{file}.pth", "MIT", metric, **evaluation)
    metric = "weights for fine-tuning, 21841 classes"
    rows[f"imagenet22k{suffix}"] = PublishedWeights(f"{start}.pth", "MIT", metric, **evaluation)
    metric = f"ImageNet-1k top-1 {top1_after_22k}"
    rows[f"imagenet22k_1k{suffix}"] = PublishedWeights(fine_tuned, "MIT", metric, **evaluation)
    return rows


def torchvision(size: str, sha256: str, top1: float, resized: int) -> PublishedWeights:
    """A classifier trained by torchvision. `resized`: image size before the center crop of 224 pixels."""
    address = f"https://download.pytorch.org/models/swin_{size[0]}-{sha256}.pth"
    metric = f"ImageNet-1k top-1 {top1}"
    return PublishedWeights(address, "BSD-3-Clause", metric, sha256, crop_pct=224 / resized, interpolation="bicubic")


def ade20k(size: str, miou: float) -> PublishedWeights:
    """The authors' segmentation network."""
    address = f"{ADDRESS}1.0.1/upernet_swin_{size}_patch4_window7_512x512.pth"
    metric = f"ADE20K mIoU {miou} with UPerNet"
    return PublishedWeights(address, "MIT", metric, image_size=512, crop_pct=1.0)


WEIGHTS = {
    "tiny": {
        **classifiers("tiny_patch4_window7_224", 81.2, 80.9, "1.0.8"),
        "torchvision": torchvision("tiny", "704ceda3", 81.474, 232),
        "ade20k": ade20k("tiny", 44.51),
    },
    "small": {
        **classifiers("small_patch4_window7_224", 83.2, 83.2, "1.0.8"),
        "torchvision": torchvision("small", "5e29d889", 83.196, 246),
        "ade20k": ade20k("small", 47.64),
    },
    "base": {
        **classifiers("base_patch4_window7_224", 83.5, 85.2),
        "torchvision": torchvision("base", "68c6b09e", 83.582, 238),
        "ade20k": ade20k("base", 48.13),
    },
    "large": classifiers("large_patch4_window7_224", None, 86.3),
    "base_window12": classifiers("base_patch4_window12_384", 84.5, 86.4),
    "large_window12": classifiers("large_patch4_window12_384", None, 87.3),
}
