"""PublishedWeights weight files of vgg16."""

from __future__ import annotations

from spine.checkpoints.formats.vgg16 import CAFFE_MEAN, CAFFE_STD
from spine.checkpoints.weight_table import PublishedWeights, hashed

PYTORCH = "https://download.pytorch.org/models/vgg16-"


MMLAB = "https://download.openmmlab.com/mmclassification/v0/vgg/vgg16_batch256_imagenet_20210208-"


# The authors' files are Caffe's. That of `largefov` is SSD's, where the hidden layers are reduced to 1024 channels.
WEIGHTS: dict[str, dict[str, PublishedWeights]] = {
    "plain": {
        "imagenet1k": hashed(f"{PYTORCH}397923af.pth", "BSD-3-Clause", "ImageNet-1k top-1 71.592"),
        "openmmlab": hashed(f"{MMLAB}db26f1a5.pth", "Apache-2.0", "ImageNet-1k top-1 71.62"),
    },
    "largefov": {
        "imagenet1k": PublishedWeights(
            "https://s3.amazonaws.com/amdegroot-models/vgg16_reducedfc.pth",
            "MIT",
            "a start for dense tasks, without a classifier",
            image_size=None,
            crop_pct=None,
            mean=CAFFE_MEAN,
            std=CAFFE_STD,
            interpolation=None,
        )
    },
}
