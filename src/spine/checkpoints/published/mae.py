"""PublishedWeights weight files of mae."""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights

FACEBOOK, LICENSE = "https://dl.fbaipublicfiles.com/mae/", "CC-BY-NC-4.0"


def bicubic(address: str, metric: str) -> PublishedWeights:
    """A file of the authors, who evaluate on the middle 224 of 256 pixels."""
    return PublishedWeights(address, LICENSE, metric, interpolation="bicubic")


def published_row(size: str, top1: float) -> dict[str, PublishedWeights]:
    """Fine-tuned, and the encoder of the pre-training (the authors' README and FINETUNE.md)."""
    pretrained = f"{FACEBOOK}pretrain/mae_pretrain_vit_{size}.pth"
    return {
        "imagenet1k": bicubic(f"{FACEBOOK}finetune/mae_finetuned_vit_{size}.pth", f"ImageNet-1k top-1 {top1}"),
        "pretrained": bicubic(pretrained, "a start for fine-tuning, self-supervised on ImageNet-1k"),
    }


def with_decoder(file: str, how: str) -> PublishedWeights:
    """Encoder and decoder, of the authors' demo, where it paints the hidden patches."""
    return bicubic(f"{FACEBOOK}visualize/mae_visualize_vit_{file}.pth", f"encoder and decoder, trained on plain pixels{how}")


WEIGHTS: dict[str, dict[str, PublishedWeights]] = {
    "base_patch16": published_row("base", 83.664),
    "large_patch16": {
        **published_row("large", 85.952),
        "visualize": with_decoder("large", ""),
        "visualize_gan": with_decoder("large_ganloss", " and with a GAN loss"),
    },
    "huge_patch14": published_row("huge", 86.928),
}
