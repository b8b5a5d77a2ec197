"""BEiT: the authors' weight files.

All were pre-trained on ImageNet-22k without labels, with mean and std 0.5 (README of the authors). Their file of a pre-training
on ImageNet-1k is not listed: its network is another one, with absolute positions and without layer scale.
"""

from __future__ import annotations

from spine.checkpoints.input_settings import HALF_MEAN, HALF_STD
from spine.checkpoints.weight_table import PublishedWeights

ADDRESS = "https://github.com/addf400/files/releases/download/v1.0/beit_"


def beit(size: str, file: str, metric: str, image_size: int = 224) -> PublishedWeights:
    """A file of the authors. `file`: end of its name."""
    return PublishedWeights(
        f"{ADDRESS}{size}_patch16_{image_size}_pt22k{file}.pth",
        "MIT",
        metric,
        image_size=image_size,
        crop_pct=0.875 if image_size < 384 else 1.0,
        mean=HALF_MEAN,
        std=HALF_STD,
        interpolation="bicubic",
    )


def variant(size: str, top1: float, top1_after_22k: dict[int, float]) -> dict[str, PublishedWeights]:
    """Weights of one variant.

    `top1`: fine-tuned on ImageNet-1k. `top1_after_22k`: fine-tuned on ImageNet-22k, then on ImageNet-1k, by image size.
    """
    rows = {"imagenet1k": beit(size, "_ft1k", f"ImageNet-1k top-1 {top1}")}
    for pixels, score in top1_after_22k.items():
        name = "imagenet22k_1k" if pixels == 224 else f"imagenet22k_1k_{pixels}"
        rows[name] = beit(size, "_ft22kto1k", f"ImageNet-1k top-1 {score}", pixels)
    rows["imagenet22k"] = beit(size, "_ft22k", "weights for fine-tuning, 21841 classes")
    rows["pretrained"] = beit(size, "", "weights for fine-tuning, self-supervised on ImageNet-22k")
    return rows


WEIGHTS = {
    "base_patch16": variant("base", 83.7, {224: 85.2, 384: 86.8}),
    "large_patch16": variant("large", 86.0, {224: 87.4, 384: 88.4, 512: 88.6}),
}
