"""PublishedWeights weight files of convnext."""

from __future__ import annotations

from typing import Any

from spine.checkpoints.weight_table import SQUASHED, PublishedWeights

FACEBOOK = "https://dl.fbaipublicfiles.com/convnext/convnext_"


def published_row(variant: str, top1: tuple[float | None, ...], ema: str = "") -> dict[str, PublishedWeights]:
    """ImageNet-1k at 224 and 384 px, from ImageNet-22k at 224 and 384 px, and ImageNet-22k alone (README of the authors)."""
    names = ("imagenet1k", "imagenet1k_384", "imagenet22k_1k", "imagenet22k_1k_384")
    files = ("1k_224_ema", "1k_384", f"22k_1k_224{ema}", f"22k_1k_384{ema}")
    rows = {
        name: PublishedWeights(
            f"{FACEBOOK}{variant}_{file}.pth",
            "MIT",
            f"ImageNet-1k top-1 {score}",
            interpolation="bicubic",
            **(LARGE if "384" in name else {}),
        )
        for name, file, score in zip(names, files, top1, strict=True)
        if score is not None
    }
    start = "a start for fine-tuning, 21841 classes"
    return {**rows, "imagenet22k": PublishedWeights(f"{FACEBOOK}{variant}_22k_224.pth", "MIT", start, interpolation="bicubic")}


LARGE: dict[str, Any] = {"image_size": 384, "crop_pct": 1.0, "note": SQUASHED}


WEIGHTS = {
    "tiny": published_row("tiny", (82.1, None, 82.9, 84.1)),
    "small": published_row("small", (83.1, None, 84.6, 85.8)),
    "base": published_row("base", (83.8, 85.1, 85.8, 86.8)),
    "large": published_row("large", (84.3, 85.5, 86.6, 87.5)),
    "xlarge": published_row("xlarge", (None, None, 87.0, 87.8), ema="_ema"),
}
