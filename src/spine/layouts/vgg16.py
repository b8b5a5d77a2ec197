"""VGG-16 as torchvision, timm and OpenMMLab publish it."""

from __future__ import annotations

from spine.names import FLATTEN, Layout, Row, Transform

CONV7 = Transform(lambda x: x.flatten(1), lambda x: (x.unflatten(1, (-1, 7, 7)),))  # a 7x7 convolution for a linear layer

TORCHVISION = Layout(
    "torchvision",
    (
        Row("features.*.*", "backbone.features.*.*"),
        Row("classifier.0.*", "backbone.pooling.fc6.*"),
        Row("classifier.3.*", "backbone.pooling.fc7.*"),
        Row("classifier.6.*", "head.linear.*"),
    ),
)

TIMM = Layout(
    "timm",
    (
        Row("features.*.*", "backbone.features.*.*"),
        Row("pre_logits.fc1.weight", "backbone.pooling.fc6.weight", CONV7),
        Row("pre_logits.fc1.bias", "backbone.pooling.fc6.bias"),
        Row("pre_logits.fc2.weight", "backbone.pooling.fc7.weight", FLATTEN),
        Row("pre_logits.fc2.bias", "backbone.pooling.fc7.bias"),
        Row("head.fc.*", "head.linear.*"),
    ),
    options={"hidden_as_convs": True},
)

PLACES = ((0, 0), (1, 2), (3, 5), (4, 7), (6, 10), (7, 12), (8, 14), (10, 17), (11, 19), (12, 21), (14, 24), (15, 26), (16, 28))
OPENMMLAB = Layout(  # a convolution and its ReLU share a number; the classifier is a part of the backbone
    "openmmlab",
    (
        *(Row(f"backbone.features.{theirs}.conv.*", f"backbone.features.{ours}.*") for theirs, ours in PLACES),
        Row("backbone.classifier.0.*", "backbone.pooling.fc6.*"),
        Row("backbone.classifier.3.*", "backbone.pooling.fc7.*"),
        Row("backbone.classifier.6.*", "head.linear.*"),
    ),
    wrapper="state_dict",
)

LAYOUTS = (TORCHVISION, TIMM, OPENMMLAB)
