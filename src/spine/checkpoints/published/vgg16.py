"""VGG-16: weight files of torchvision, OpenMMLab and SSD. The authors published Caffe files only."""

from __future__ import annotations

from spine.checkpoints.formats.vgg16 import CAFFE_MEAN, CAFFE_STD
from spine.checkpoints.weight_table import PublishedWeights, hash_in_name

PYTORCH = "https://download.pytorch.org/models/vgg16-"
OPENMMLAB = "https://download.openmmlab.com/mmclassification/v0/vgg/vgg16_batch256_imagenet_20210208-"

WEIGHTS = {
    "plain": {
        "imagenet1k": hash_in_name(f"{PYTORCH}397923af.pth", "BSD-3-Clause", "ImageNet-1k top-1 71.592"),
        "openmmlab": hash_in_name(f"{OPENMMLAB}db26f1a5.pth", "Apache-2.0", "ImageNet-1k top-1 71.62"),
    },
    "largefov": {
        "imagenet1k": PublishedWeights(  # the file of SSD, with hidden layers that are reduced to 1024 channels
            "https://s3.amazonaws.com/amdegroot-models/vgg16_reducedfc.pth",
            "MIT",
            "weights for dense tasks, without a classifier",
            image_size=None,
            crop_pct=None,
            mean=CAFFE_MEAN,
            std=CAFFE_STD,
            interpolation=None,
        )
    },
}
