"""MobileNetV2 as timm, Hugging Face, OpenMMLab and d-li14 (github.com/d-li14/mobilenetv2.pytorch) publish it."""

from __future__ import annotations

import itertools

from spine.checkpoints.input_settings import HALF, IMAGENET
from spine.checkpoints.mapping import Layout, Rule, with_input

REPEATS = (1, 2, 3, 4, 3, 3, 1)


FIRST = list(itertools.accumulate(REPEATS, initial=1))  # the stages' first blocks among ours


PLACES = [(stage, i, FIRST[stage] + i) for stage in range(1, 7) for i in range(REPEATS[stage])]  # those that expand: theirs, ours


def pair(
    theirs: str, ours: str, places: tuple[str, str] = ("0", "1"), names: tuple[str, str] = ("conv", "bn")
) -> tuple[Rule, ...]:
    """A convolution and its norm, by their names there and their places here."""
    return tuple(Rule(f"{theirs}.{name}.*", f"{ours}.{place}.*") for name, place in zip(names, places, strict=True))


TIMM = Layout(
    "timm",
    (
        Rule("conv_stem.*", "backbone.features.0.0.*"),
        Rule("bn1.*", "backbone.features.0.1.*"),
        *pair("blocks.0.0", "backbone.features.1.conv.0", names=("conv_dw", "bn1")),
        *pair("blocks.0.0", "backbone.features.1.conv", ("1", "2"), ("conv_pw", "bn2")),
        *(
            row
            for stage, i, n in PLACES
            for row in (
                *pair(f"blocks.{stage}.{i}", f"backbone.features.{n}.conv.0", names=("conv_pw", "bn1")),
                *pair(f"blocks.{stage}.{i}", f"backbone.features.{n}.conv.1", names=("conv_dw", "bn2")),
                *pair(f"blocks.{stage}.{i}", f"backbone.features.{n}.conv", ("2", "3"), ("conv_pwl", "bn3")),
            )
        ),
        Rule("conv_head.*", "backbone.pooling.conv.0.*"),
        Rule("bn2.*", "backbone.pooling.conv.1.*"),
        Rule("classifier.*", "head.linear.*"),
    ),
)


WORDS = ("convolution", "normalization")


HUGGING_FACE = Layout(  # the authors' own weights, with 1001 classes, of which the first is the background
    "hf",
    (
        *pair("mobilenet_v2.conv_stem.first_conv", "backbone.features.0", names=WORDS),
        *pair("mobilenet_v2.conv_stem.conv_3x3", "backbone.features.1.conv.0", names=WORDS),
        *pair("mobilenet_v2.conv_stem.reduce_1x1", "backbone.features.1.conv", ("1", "2"), WORDS),
        *(
            row
            for layer in range(16)
            for row in (
                *pair(f"mobilenet_v2.layer.{layer}.expand_1x1", f"backbone.features.{layer + 2}.conv.0", names=WORDS),
                *pair(f"mobilenet_v2.layer.{layer}.conv_3x3", f"backbone.features.{layer + 2}.conv.1", names=WORDS),
                *pair(f"mobilenet_v2.layer.{layer}.reduce_1x1", f"backbone.features.{layer + 2}.conv", ("2", "3"), WORDS),
            )
        ),
        *pair("mobilenet_v2.conv_1x1", "backbone.pooling.conv", names=WORDS),
        Rule("classifier.*", "head.linear.*"),
    ),
    options={"norm_eps": 1e-3, "tf_padding": True},
    input=HALF,
)


OPENMMLAB = Layout(
    "openmmlab",
    (
        *pair("backbone.conv1", "backbone.features.0"),
        *pair("backbone.layer1.0.conv.0", "backbone.features.1.conv.0"),
        *pair("backbone.layer1.0.conv.1", "backbone.features.1.conv", ("1", "2")),
        *(
            row
            for stage, i, n in PLACES
            for row in (
                *pair(f"backbone.layer{stage + 1}.{i}.conv.0", f"backbone.features.{n}.conv.0"),
                *pair(f"backbone.layer{stage + 1}.{i}.conv.1", f"backbone.features.{n}.conv.1"),
                *pair(f"backbone.layer{stage + 1}.{i}.conv.2", f"backbone.features.{n}.conv", ("2", "3")),
            )
        ),
        *pair("backbone.conv2", "backbone.pooling.conv"),
        Rule("head.fc.*", "head.linear.*"),
    ),
    wrapper="state_dict",
)


D_LI14 = Layout(
    "d_li14",
    (
        Rule("features.0.*.*", "backbone.features.0.*.*"),
        *pair("features.1.conv", "backbone.features.1.conv.0", names=("0", "1")),
        *pair("features.1.conv", "backbone.features.1.conv", ("1", "2"), ("3", "4")),
        *pair("features.*.conv", "backbone.features.*.conv.0", names=("0", "1")),
        *pair("features.*.conv", "backbone.features.*.conv.1", names=("3", "4")),
        *pair("features.*.conv", "backbone.features.*.conv", ("2", "3"), ("6", "7")),
        Rule("conv.*.*", "backbone.pooling.conv.*.*"),
        Rule("classifier.*", "head.linear.*"),
    ),
)


OTHER_PUBLISHERS = (TIMM, HUGGING_FACE, OPENMMLAB, D_LI14)


# torchvision's names; the authors published TensorFlow's checkpoints, which Hugging Face has converted.
TORCHVISION = Layout(
    "torchvision",
    (
        Rule("features.18.**", "backbone.pooling.conv.**"),
        Rule("features.**", "backbone.features.**"),
        Rule("classifier.1.*", "head.linear.*"),
    ),
    forbidden=("features.1.conv.0.weight",),  # d_li14's blocks are not nested
)


LAYOUTS = with_input(IMAGENET, (TORCHVISION, *OTHER_PUBLISHERS))
