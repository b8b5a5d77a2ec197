"""MobileNetV3: tensor names of torchvision, timm, OpenMMLab and d-li14 (github.com/d-li14/mobilenetv3.pytorch).

The authors published TensorFlow checkpoints, which timm has converted (`timm_tf`). The names of a block depend on whether it
has squeeze-and-excitation, so Large, Small and their minimalistic versions have separate layouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from spine.checkpoints.formats._common import conv_norm, numbered_blocks
from spine.checkpoints.input_settings import HALF, IMAGENET, IMAGENET_BICUBIC
from spine.checkpoints.mapping import (
    CONV_TO_LINEAR,
    LINEAR_TO_CONV,
    Layout,
    Rule,
    TensorConversion,
    with_input_settings,
)
from spine.option_types import Options

Names = tuple[str, str]  # a convolution and its norm, or the two layers of squeeze-and-excitation
TIMM_SQUEEZE = ("se.conv_reduce", "se.conv_expand")


class Architecture(NamedTuple):
    """The structure that determines the tensor names of a network."""

    depths: tuple[int, ...]  # blocks of each stage in timm
    squeezed: tuple[int, ...] = ()  # numbers of the blocks with squeeze-and-excitation; the first block is 1


LARGE = Architecture((1, 2, 3, 4, 2, 3), (4, 5, 6, 11, 12, 13, 14, 15))
SMALL = Architecture((1, 2, 3, 2, 3), (1, *range(4, 12)))
LARGE_MINIMAL, SMALL_MINIMAL = Architecture(LARGE.depths), Architecture(SMALL.depths)


class BlockNames(NamedTuple):
    """Names of the layers of a block."""

    expand: Names | None  # None for the first block, which does not expand
    depthwise: Names
    squeeze: Names
    project: Names


def block(
    architecture: Architecture, number: int, source: str, names: BlockNames, squeeze_conversion: TensorConversion | None = None
) -> Iterator[Rule]:
    """Rules for one block. `squeeze_conversion`: for publishers whose squeeze-and-excitation layers are linear layers."""
    target, position = f"backbone.features.{number}.block", 0
    for layers in (names.expand, names.depthwise):
        if layers is not None:
            yield from conv_norm(source, f"{target}.{position}", names=layers)
            position += 1
    if number in architecture.squeezed:
        for i, name in enumerate(names.squeeze, 1):
            yield Rule(f"{source}.{name}.weight", f"{target}.{position}.fc{i}.weight", squeeze_conversion)
            yield Rule(f"{source}.{name}.bias", f"{target}.{position}.fc{i}.bias")
        position += 1
    yield from conv_norm(source, f"{target}.{position}", names=names.project)


def torchvision(last: int, required: tuple[str, ...] = (), forbidden: tuple[str, ...] = ()) -> Layout:
    """The layout of torchvision. `last`: index of the last convolution in `features`."""
    return Layout(
        "torchvision",
        (
            Rule(f"features.{last}.*.*", "backbone.pooling.conv.*.*"),
            Rule("features.**", "backbone.features.**"),
            Rule("classifier.0.*", "backbone.pooling.hidden.*"),
            Rule("classifier.3.*", "head.linear.*"),
        ),
        required=required,
        forbidden=forbidden,
    )


def timm(publisher: str, architecture: Architecture, options: Options) -> Layout:
    """A layout of timm, where the layer after the pooling is a 1x1 convolution."""
    names = BlockNames(("conv_pw", "bn1"), ("conv_dw", "bn2"), TIMM_SQUEEZE, ("conv_pwl", "bn3"))
    first = BlockNames(None, ("conv_dw", "bn1"), TIMM_SQUEEZE, ("conv_pw", "bn2"))
    stages = len(architecture.depths)
    distinctive = {  # names that distinguish the architectures, and whether this one has them
        "blocks.0.0.se.conv_reduce.weight": 1 in architecture.squeezed,
        "blocks.2.0.se.conv_reduce.weight": 4 in architecture.squeezed,
        "blocks.5.0.conv_dw.weight": stages == 6,
    }
    return Layout(
        publisher,
        (
            *conv_norm("", "backbone.features.0", names=("conv_stem", "bn1")),
            *conv_norm(f"blocks.{stages}.0", "backbone.pooling.conv", names=("conv", "bn1")),
            *(
                rule
                for stage, i, number in numbered_blocks(architecture.depths, start=1)
                for rule in block(architecture, number, f"blocks.{stage}.{i}", first if number == 1 else names)
            ),
            Rule("conv_head.weight", "backbone.pooling.hidden.weight", CONV_TO_LINEAR),
            Rule("conv_head.bias", "backbone.pooling.hidden.bias"),
            Rule("classifier.*", "head.linear.*"),
        ),
        options=options,
        required=tuple(name for name, present in distinctive.items() if present),
        forbidden=tuple(name for name, present in distinctive.items() if not present),
    )


def only_in_small(architecture: Architecture, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the required and the forbidden names of a layout, for a name that only files of Small contain."""
    return ((name,), ()) if architecture is SMALL else ((), (name,))


def openmmlab(architecture: Architecture) -> Layout:
    """A layout of OpenMMLab, where the hidden layer is a part of the head."""
    expand, depthwise, project = ((f"{name}_conv.conv", f"{name}_conv.bn") for name in ("expand", "depthwise", "linear"))
    names = BlockNames(expand, depthwise, ("se.conv1.conv", "se.conv2.conv"), project)
    first = names._replace(expand=None)
    last = sum(architecture.depths)
    required, forbidden = only_in_small(architecture, "backbone.layer1.se.conv1.conv.weight")
    return Layout(
        "openmmlab",
        (
            *conv_norm("backbone.layer0", "backbone.features.0"),
            *conv_norm(f"backbone.layer{last + 1}", "backbone.pooling.conv"),
            *(
                rule
                for number in range(1, last + 1)
                for rule in block(architecture, number, f"backbone.layer{number}", first if number == 1 else names)
            ),
            Rule("head.layers.0.fc.*", "backbone.pooling.hidden.*"),
            Rule("head.layers.1.fc.*", "head.linear.*"),
        ),
        required=required,
        forbidden=forbidden,
        wrapper="state_dict",
    )


def d_li14(architecture: Architecture) -> Layout:
    """A layout of d-li14. The blocks are flat sequences that include the activations; squeeze-and-excitation layers are linear."""
    names = BlockNames(("0", "1"), ("3", "4"), ("5.fc.0", "5.fc.2"), ("7", "8"))
    first = BlockNames(None, ("0", "1"), ("3.fc.0", "3.fc.2"), ("4", "5"))
    required, forbidden = only_in_small(architecture, "features.1.conv.3.fc.0.weight")
    return Layout(
        "d_li14",
        (
            *conv_norm("features.0", "backbone.features.0", names=("0", "1")),
            *conv_norm("conv", "backbone.pooling.conv", names=("0", "1")),
            *(
                rule
                for number in range(1, sum(architecture.depths) + 1)
                for rule in block(
                    architecture, number, f"features.{number}.conv", first if number == 1 else names, LINEAR_TO_CONV
                )
            ),
            Rule("classifier.0.*", "backbone.pooling.hidden.*"),
            Rule("classifier.3.*", "head.linear.*"),
        ),
        options={"norm_eps": 1e-5, "squeeze_before_act": True},
        required=required,
        forbidden=forbidden,
    )


ONLY_IN_LARGE = ("features.13.block.0.0.weight",)  # torchvision
TORCHVISION = (torchvision(16, required=ONLY_IN_LARGE), torchvision(12, forbidden=ONLY_IN_LARGE))
# torchvision's lraspp_mobilenet_v3_large
TORCHVISION_SEGMENTER = Layout(
    "torchvision",
    (
        Rule("backbone.16.*.*", "backbone.pooling.conv.*.*"),
        Rule("backbone.**", "backbone.features.**"),
        *conv_norm("classifier.cbr", "head.conv", names=("0", "1")),
        Rule("classifier.scale.1.*", "head.scale.*"),
        *(Rule(f"classifier.{part}_classifier.*", f"head.{part}_classifier.*") for part in ("low", "high")),
    ),
    options={"output_stride": 16, "last_conv": True, "first_blocks": True},
    required=("classifier.cbr.0.weight",),
)
# mobilenetv3_rw has TensorFlow's epsilon, and no bias in the layer after the pooling.
TIMM_RW = replace(timm("timm", LARGE, {}), forbidden=("conv_head.bias",), input_settings=IMAGENET_BICUBIC)
TIMM_RW = replace(TIMM_RW, required=(*TIMM_RW.required, "conv_head.weight"))
# The mean of timm's files differs: ImageNet's, 0 or 0.5.
TIMM = (TIMM_RW, *(timm("timm", architecture, {"norm_eps": 1e-5}) for architecture in (LARGE, SMALL)))
# timm's `tf_` files have the same names and TensorFlow's weights, so their layout must be given. Only they include the
# minimalistic networks.
TIMM_TF = tuple(
    timm("timm_tf", architecture, {"tf_padding": True}) for architecture in (LARGE, SMALL, LARGE_MINIMAL, SMALL_MINIMAL)
)
OTHERS = (openmmlab(LARGE), openmmlab(SMALL), d_li14(LARGE), d_li14(SMALL))

LAYOUTS = (
    *with_input_settings(IMAGENET, (*TORCHVISION, TORCHVISION_SEGMENTER)),
    *TIMM,
    *with_input_settings(replace(HALF, interpolation="bilinear"), TIMM_TF),
    *with_input_settings(IMAGENET, OTHERS),
)
