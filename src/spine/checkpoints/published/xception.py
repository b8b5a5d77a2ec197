"""Xception: Keras's weights in Cadene's port, from a release of timm."""

from __future__ import annotations

from spine.checkpoints.input_settings import HALF_MEAN, HALF_STD
from spine.checkpoints.weight_table import PublishedWeights

WEIGHTS = {
    "standard": {
        "imagenet1k": PublishedWeights(  # the meaning of the digits in the file name is not documented
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/xception-43020ad28.pth",
            "Apache-2.0",
            "ImageNet-1k top-1 79.06",
            image_size=299,
            crop_pct=0.8975,
            mean=HALF_MEAN,
            std=HALF_STD,
            interpolation="bicubic",
        )
    }
}
