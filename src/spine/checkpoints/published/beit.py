"""PublishedWeights weight files of beit."""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights

BEIT = "https://github.com/addf400/files/releases/download/v1.0/beit_"


def published_row(size: str, own: float, tuned: dict[int, float]) -> dict[str, PublishedWeights]:
    """`own`: top-1 of what was tuned on ImageNet-1k alone; `tuned`: by image size, of what was tuned on ImageNet-22k before it.

    All were pre-trained on ImageNet-22k without its labels, with mean and std 0.5 (README of the authors). Their file of a pre-training
    on ImageNet-1k is of another network, with absolute positions and without layer scale.
    """

    def row(file: str, metric: str, image_size: int = 224) -> PublishedWeights:
        crop_pct = 0.875 if image_size < 384 else 1.0
        half = (0.5, 0.5, 0.5)
        return PublishedWeights(
            f"{BEIT}{size}_patch16_{image_size}_pt22k{file}.pth",
            "MIT",
            metric,
            "",
            image_size,
            crop_pct,
            half,
            half,
            interpolation="bicubic",
        )

    rows = {"imagenet1k": row("_ft1k", f"ImageNet-1k top-1 {own}")}
    for pixels, top1 in tuned.items():
        name = "imagenet22k_1k" if pixels == 224 else f"imagenet22k_1k_{pixels}"
        rows[name] = row("_ft22kto1k", f"ImageNet-1k top-1 {top1}", pixels)
    rows["imagenet22k"] = row("_ft22k", "a start for fine-tuning, 21841 classes")
    return {**rows, "pretrained": row("", "a start for fine-tuning, self-supervised on ImageNet-22k")}


WEIGHTS: dict[str, dict[str, PublishedWeights]] = {
    "base_patch16": published_row("base", 83.7, {224: 85.2, 384: 86.8}),
    "large_patch16": published_row("large", 86.0, {224: 87.4, 384: 88.4, 512: 88.6}),
}
