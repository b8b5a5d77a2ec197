"""PublishedWeights weight files of resnest."""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights, hashed

# GluonCV's, which timm has converted
WEIGHTS: dict[str, dict[str, PublishedWeights]] = {
    f"resnest{depth}": {
        "imagenet1k": PublishedWeights(
            f"https://huggingface.co/timm/resnest{depth}d.gluon_in1k/resolve/main/model.safetensors",
            "Apache-2.0",
            f"ImageNet-1k top-1 {top1}",
        )
    }
    for depth, top1 in ((14, 75.51), (26, 78.48))
}

RELEASE = "https://github.com/zhanghang1989/ResNeSt/releases/download/weights_step1/"
# The authors'; they evaluate on all but 32 of size + 32 pixels.
WEIGHTS |= {
    variant: {
        "imagenet1k": hashed(
            f"{RELEASE}{variant}-{digits}.pth",
            "Apache-2.0",
            f"ImageNet-1k top-1 {top1}",
            image_size=size,
            crop_pct=size / (size + 32),
            interpolation="bicubic" if size >= 320 else "bilinear",
        )
    }
    for variant, digits, size, top1 in (
        ("resnest50", "528c19ca", 224, 81.03),
        ("resnest101", "22405ba7", 256, 82.83),
        ("resnest200", "75117900", 320, 83.84),
        ("resnest269", "0cc87c48", 416, 84.54),
        ("resnest50_fast_1s1x64d", "d8fbf808", 224, 80.33),
        ("resnest50_fast_2s1x64d", "44938639", 224, 80.53),
        ("resnest50_fast_4s1x64d", "f74f3fc3", 224, 80.76),
        ("resnest50_fast_1s2x40d", "32830b84", 224, 80.59),
        ("resnest50_fast_2s2x40d", "9d126481", 224, 80.61),
        ("resnest50_fast_4s2x40d", "41d14ed0", 224, 81.14),
        ("resnest50_fast_1s4x24d", "d4a4f76f", 224, 80.99),
    )
}
