"""MAE: the authors' weight files."""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights

ADDRESS = "https://dl.fbaipublicfiles.com/mae/"


def mae(file: str, metric: str) -> PublishedWeights:
    """A file of the authors. They evaluate on the center 224 pixels of images of 256."""
    return PublishedWeights(f"{ADDRESS}{file}.pth", "CC-BY-NC-4.0", metric, interpolation="bicubic")


def variant(size: str, top1: float) -> dict[str, PublishedWeights]:
    """A fine-tuned network, and the encoder of the pre-training (README.md and FINETUNE.md of the authors)."""
    return {
        "imagenet1k": mae(f"finetune/mae_finetuned_vit_{size}", f"ImageNet-1k top-1 {top1}"),
        "pretrained": mae(f"pretrain/mae_pretrain_vit_{size}", "weights for fine-tuning, self-supervised on ImageNet-1k"),
    }


# Encoder and decoder of the authors' demo, where the network reconstructs the masked patches.
VISUALIZATION = {
    "visualize": mae("visualize/mae_visualize_vit_large", "encoder and decoder, trained on plain pixels"),
    "visualize_gan": mae(
        "visualize/mae_visualize_vit_large_ganloss", "encoder and decoder, trained on plain pixels and with a GAN loss"
    ),
}

WEIGHTS = {
    "base_patch16": variant("base", 83.664),
    "large_patch16": {**variant("large", 85.952), **VISUALIZATION},
    "huge_patch14": variant("huge", 86.928),
}
