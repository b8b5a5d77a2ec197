"""PublishedWeights weight files of xception."""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights

# Keras's weights in Cadene's port, from timm's release; what the digits of its name are, nobody says.
WEIGHTS: dict[str, dict[str, PublishedWeights]] = {
    "standard": {
        "imagenet1k": PublishedWeights(
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/xception-43020ad28.pth",
            "Apache-2.0",
            "ImageNet-1k top-1 79.06",
            image_size=299,
            crop_pct=0.8975,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            interpolation="bicubic",
        )
    }
}
