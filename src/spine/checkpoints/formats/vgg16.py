"""VGG-16 as torchvision, timm and OpenMMLab publish it."""

from __future__ import annotations

from spine.backbones.vgg16 import DEPTHS
from spine.checkpoints.input_settings import IMAGENET, InputSettings
from spine.checkpoints.mapping import FLATTEN, Layout, Rule, TensorConversion, with_input

CONV7 = TensorConversion(lambda x: x.flatten(1), lambda x: (x.unflatten(1, (-1, 7, 7)),))  # a 7x7 convolution for a linear layer


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
        Rule("pre_logits.fc1.weight", "backbone.pooling.fc6.weight", CONV7),
        Rule("pre_logits.fc1.bias", "backbone.pooling.fc6.bias"),
        Rule("pre_logits.fc2.weight", "backbone.pooling.fc7.weight", FLATTEN),
        Rule("pre_logits.fc2.bias", "backbone.pooling.fc7.bias"),
        Rule("head.fc.*", "head.linear.*"),
    ),
    options={"hidden_as_convs": True},
)


PLACES = ((0, 0), (1, 2), (3, 5), (4, 7), (6, 10), (7, 12), (8, 14), (10, 17), (11, 19), (12, 21), (14, 24), (15, 26), (16, 28))


OPENMMLAB = Layout(  # a convolution and its ReLU share a number; the classifier is a part of the backbone
    "openmmlab",
    (
        *(Rule(f"backbone.features.{theirs}.conv.*", f"backbone.features.{ours}.*") for theirs, ours in PLACES),
        Rule("backbone.classifier.0.*", "backbone.pooling.fc6.*"),
        Rule("backbone.classifier.3.*", "backbone.pooling.fc7.*"),
        Rule("backbone.classifier.6.*", "head.linear.*"),
    ),
    wrapper="state_dict",
)


OTHER_PUBLISHERS = (TORCHVISION, TIMM, OPENMMLAB)


CAFFE_MEAN, CAFFE_STD = (123 / 255, 117 / 255, 104 / 255), (1 / 255, 1 / 255, 1 / 255)  # values of 0..255 less their mean


CAFFE = [f"conv{group}_{i}" for group, depth in enumerate(DEPTHS, 1) for i in range(1, depth + 1)]


CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # their numbers in `features`


SCALE = TensorConversion(lambda x: x[:, None, None], lambda x: (x.flatten(),))


# Caffe's layers of DeepLab-LargeFOV and ParseNet, with ".weight" and ".bias" as converted files have them.
OFFICIAL = Layout(
    "official",
    (
        *(Rule(f"{name}.*", f"backbone.features.{i}.*") for name, i in zip(CAFFE, CONVS, strict=True)),
        Rule("fc6.*", "backbone.fc6.*"),
        Rule("fc7.*", "backbone.fc7.*"),
        Rule("fc7_norm.weight", "head.local_norm.scale", SCALE),
        Rule("pool6_1x1_norm.weight", "head.global_norm.scale", SCALE),
        Rule("score.*", "head.score.*"),
    ),
    input=InputSettings(
        mean=CAFFE_MEAN, std=CAFFE_STD, note="made for images in BGR order (blue first), if it is Caffe's; spine's are RGB."
    ),
)


# VGG_ILSVRC_16_layers_fc_reduced, from which both started, as SSD's file for torch numbers its layers.
REDUCED = Layout(
    "official",
    (
        *(Rule(f"{i}.*", f"backbone.features.{i}.*") for i in CONVS),
        Rule("31.*", "backbone.fc6.*"),
        Rule("33.*", "backbone.fc7.*"),
    ),
    input=InputSettings(mean=CAFFE_MEAN, std=CAFFE_STD),
)


LAYOUTS = (OFFICIAL, REDUCED, *with_input(IMAGENET, OTHER_PUBLISHERS))
