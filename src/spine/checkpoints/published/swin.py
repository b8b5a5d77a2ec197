"""PublishedWeights weight files of swin."""

from __future__ import annotations

from typing import Any

from spine.checkpoints.weight_table import SQUASHED, PublishedWeights

SWIN = "https://github.com/SwinTransformer/storage/releases/download/v"


BICUBIC: dict[str, Any] = {"interpolation": "bicubic"}


LARGE_IMAGE: dict[str, Any] = {"image_size": 384, "crop_pct": 1.0, "note": SQUASHED, **BICUBIC}


def published_row(file: str, own: float | None, tuned: float, release: str = "1.0.0") -> dict[str, PublishedWeights]:
    """Top-1 on ImageNet-1k of what was trained on it alone, and of what was tuned on it after ImageNet-22k (authors' MODELHUB.md)."""
    end, facts = ("_384", LARGE_IMAGE) if file.endswith("384") else ("", BICUBIC)
    start = f"{SWIN}{release}/swin_{file}_22k"
    tuned_file = f"{start}to1k{'_finetune' if release == '1.0.8' else ''}.pth"
    rows = {
        f"imagenet1k{end}": PublishedWeights(f"{SWIN}1.0.0/swin_{file}.pth", "MIT", f"ImageNet-1k top-1 {own}", **facts),
        f"imagenet22k{end}": PublishedWeights(f"{start}.pth", "MIT", "a start for fine-tuning, 21841 classes", **facts),
        f"imagenet22k_1k{end}": PublishedWeights(tuned_file, "MIT", f"ImageNet-1k top-1 {tuned}", **facts),
    }
    return {name: row for name, row in rows.items() if own is not None or "imagenet22k" in name}


def further_rows(size: str, sha256: str, top1: float, resized: int, miou: float) -> dict[str, PublishedWeights]:
    """Trained anew by torchvision, which resizes to `resized` before it crops; the authors' segmenter, whose UPerNet is not read."""
    address = f"https://download.pytorch.org/models/swin_{size[0]}-{sha256}.pth"
    dense = f"{SWIN}1.0.1/upernet_swin_{size}_patch4_window7_512x512.pth"
    metric = f"ADE20K mIoU {miou} with a UPerNet, of which only the backbone is read"
    return {
        "torchvision": PublishedWeights(
            address, "BSD-3-Clause", f"ImageNet-1k top-1 {top1}", sha256, crop_pct=224 / resized, **BICUBIC
        ),
        "ade20k": PublishedWeights(dense, "MIT", metric, image_size=512, crop_pct=1.0),
    }


WEIGHTS: dict[str, dict[str, PublishedWeights]] = {
    "tiny": {
        **published_row("tiny_patch4_window7_224", 81.2, 80.9, "1.0.8"),
        **further_rows("tiny", "704ceda3", 81.474, 232, 44.51),
    },
    "small": {
        **published_row("small_patch4_window7_224", 83.2, 83.2, "1.0.8"),
        **further_rows("small", "5e29d889", 83.196, 246, 47.64),
    },
    "base": {
        **published_row("base_patch4_window7_224", 83.5, 85.2),
        **further_rows("base", "68c6b09e", 83.582, 238, 48.13),
    },
    "large": published_row("large_patch4_window7_224", None, 86.3),
    "base_window12": published_row("base_patch4_window12_384", 84.5, 86.4),
    "large_window12": published_row("large_patch4_window12_384", None, 87.3),
}
