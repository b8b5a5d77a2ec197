"""VGG-16: tensor names of the authors of DeepLab-LargeFOV and ParseNet (Caffe), SSD, torchvision, timm and OpenMMLab."""

from __future__ import annotations

from spine.backbones.vgg16 import DEPTHS
from spine.checkpoints.input_settings import IMAGENET, InputSettings
from spine.checkpoints.mapping import CONV_TO_LINEAR, Layout, Rule, TensorConversion, with_input_settings

CONV_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # of the convolutions in `backbone.features`
CAFFE_NAMES = [f"conv{group}_{i}" for group, depth in enumerate(DEPTHS, 1) for i in range(1, depth + 1)]
CAFFE_MEAN, CAFFE_STD = (123 / 255, 117 / 255, 104 / 255), (1 / 255, 1 / 255, 1 / 255)  # values of 0..255 minus the mean
# In OpenMMLab, a convolution and its ReLU have one index.
OPENMMLAB_INDICES = (0, 1, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16)

CONV7_TO_LINEAR = TensorConversion(  # the publisher has a 7x7 convolution
    lambda x: x.flatten(1), lambda x: (x.unflatten(1, (-1, 7, 7)),)
)
L2_NORM_SCALE = TensorConversion(lambda x: x[:, None, None], lambda x: (x.flatten(),))  # spine: (C, 1, 1)

# Caffe's layers of DeepLab-LargeFOV and ParseNet, with ".weight" and ".bias" as in converted files.
OFFICIAL = Layout(
    "official",
    (
        *(Rule(f"{name}.*", f"backbone.features.{i}.*") for name, i in zip(CAFFE_NAMES, CONV_INDICES, strict=True)),
        Rule("fc6.*", "backbone.fc6.*"),
        Rule("fc7.*", "backbone.fc7.*"),
        Rule("fc7_norm.weight", "head.local_norm.scale", L2_NORM_SCALE),
        Rule("pool6_1x1_norm.weight", "head.global_norm.scale", L2_NORM_SCALE),
        Rule("score.*", "head.score.*"),
    ),
    input_settings=InputSettings(
        mean=CAFFE_MEAN,
        std=CAFFE_STD,
        note="made for images in BGR order (blue first), if it is Caffe's: set dataset.channels=bgr.",
    ),
)
# VGG_ILSVRC_16_layers_fc_reduced, the initialization of both, with the layer numbers of SSD's file for torch.
REDUCED = Layout(
    "official",
    (
        *(Rule(f"{i}.*", f"backbone.features.{i}.*") for i in CONV_INDICES),
        Rule("31.*", "backbone.fc6.*"),
        Rule("33.*", "backbone.fc7.*"),
    ),
    input_settings=InputSettings(mean=CAFFE_MEAN, std=CAFFE_STD),
)
TORCHVISION = Layout(
    "torchvision",
    (
        Rule("features.*.*", "backbone.features.*.*"),
        Rule("classifier.0.*", "backbone.pooling.fc6.*"),
        Rule("classifier.3.*", "backbone.pooling.fc7.*"),
        Rule("classifier.6.*", "head.linear.*"),
    ),
)
TIMM = Layout(
    "timm",
    (
        Rule("features.*.*", "backbone.features.*.*"),
        Rule("pre_logits.fc1.weight", "backbone.pooling.fc6.weight", CONV7_TO_LINEAR),
        Rule("pre_logits.fc1.bias", "backbone.pooling.fc6.bias"),
        Rule("pre_logits.fc2.weight", "backbone.pooling.fc7.weight", CONV_TO_LINEAR),
        Rule("pre_logits.fc2.bias", "backbone.pooling.fc7.bias"),
        Rule("head.fc.*", "head.linear.*"),
    ),
    options={"hidden_as_convs": True},
)
OPENMMLAB = Layout(  # the classifier is a part of the backbone
    "openmmlab",
    (
        *(
            Rule(f"backbone.features.{source}.conv.*", f"backbone.features.{target}.*")
            for source, target in zip(OPENMMLAB_INDICES, CONV_INDICES, strict=True)
        ),
        Rule("backbone.classifier.0.*", "backbone.pooling.fc6.*"),
        Rule("backbone.classifier.3.*", "backbone.pooling.fc7.*"),
        Rule("backbone.classifier.6.*", "head.linear.*"),
    ),
    wrapper="state_dict",
)

LAYOUTS = (OFFICIAL, REDUCED, *with_input_settings(IMAGENET, (TORCHVISION, TIMM, OPENMMLAB)))
