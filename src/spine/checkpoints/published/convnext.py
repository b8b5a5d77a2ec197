"""ConvNeXt: the authors' weight files."""

from __future__ import annotations

from spine.checkpoints.weight_table import SQUASHED, Evaluation, PublishedWeights

ADDRESS = "https://dl.fbaipublicfiles.com/convnext/convnext_"
AT_224: Evaluation = {"interpolation": "bicubic"}
AT_384: Evaluation = {"image_size": 384, "crop_pct": 1.0, "interpolation": "bicubic", "note": SQUASHED}
NAMES = ("imagenet1k", "imagenet1k_384", "imagenet22k_1k", "imagenet22k_1k_384")


def variant(name: str, top1: tuple[float | None, ...], ema: str = "") -> dict[str, PublishedWeights]:
    """Weights of one variant (README of the authors).

    `top1`: on ImageNet-1k, of the files in the order of NAMES: trained on ImageNet-1k at 224 and 384 pixels, fine-tuned from
    ImageNet-22k at 224 and 384 pixels. `ema`: end of the names of the fine-tuned files.
    """
    files = ("1k_224_ema", "1k_384", f"22k_1k_224{ema}", f"22k_1k_384{ema}")
    rows = {
        row: PublishedWeights(
            f"{ADDRESS}{name}_{file}.pth", "MIT", f"ImageNet-1k top-1 {score}", **(AT_384 if "384" in row else AT_224)
        )
        for row, file, score in zip(NAMES, files, top1, strict=True)
        if score is not None
    }
    rows["imagenet22k"] = PublishedWeights(
        f"{ADDRESS}{name}_22k_224.pth", "MIT", "weights for fine-tuning, 21841 classes", **AT_224
    )
    return rows


WEIGHTS = {
    "tiny": variant("tiny", (82.1, None, 82.9, 84.1)),
    "small": variant("small", (83.1, None, 84.6, 85.8)),
    "base": variant("base", (83.8, 85.1, 85.8, 86.8)),
    "large": variant("large", (84.3, 85.5, 86.6, 87.5)),
    "xlarge": variant("xlarge", (None, None, 87.0, 87.8), ema="_ema"),
}
