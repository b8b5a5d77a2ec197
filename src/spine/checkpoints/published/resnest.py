"""ResNeSt: weight files of the authors, and of GluonCV (converted by timm)."""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights, hash_in_name

RELEASE = "https://github.com/zhanghang1989/ResNeSt/releases/download/weights_step1/"


def gluon(depth: int, top1: float) -> PublishedWeights:
    """A file of GluonCV, converted by timm."""
    address = f"https://huggingface.co/timm/resnest{depth}d.gluon_in1k/resolve/main/model.safetensors"
    return PublishedWeights(address, "Apache-2.0", f"ImageNet-1k top-1 {top1}")


def official(name: str, sha256: str, image_size: int, top1: float) -> PublishedWeights:
    """A file of the authors. They evaluate on the center `image_size` pixels of images of `image_size` + 32."""
    return hash_in_name(
        f"{RELEASE}{name}-{sha256}.pth",
        "Apache-2.0",
        f"ImageNet-1k top-1 {top1}",
        image_size=image_size,
        crop_pct=image_size / (image_size + 32),
        interpolation="bicubic" if image_size >= 320 else "bilinear",
    )


OFFICIAL = (
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

WEIGHTS = {
    "resnest14": {"imagenet1k": gluon(14, 75.51)},
    "resnest26": {"imagenet1k": gluon(26, 78.48)},
    **{row[0]: {"imagenet1k": official(*row)} for row in OFFICIAL},
}
