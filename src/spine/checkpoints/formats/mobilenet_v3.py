"""MobileNetV3: tensor names of the authors (TensorFlow checkpoints, which timm has converted: `timm_tf`), torchvision, timm,
OpenMMLab and d-li14 (github.com/d-li14/mobilenetv3.pytorch).

The names of a block depend on whether it has squeeze-and-excitation, so Large, Small and their minimalistic versions have
separate layouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from spine.checkpoints.formats import _slim
from spine.checkpoints.formats._common import conv_norm, numbered_blocks
from spine.checkpoints.input_settings import HALF, IMAGENET, IMAGENET_BICUBIC
from spine.checkpoints.mapping import (
    CONV_TO_LINEAR,
    LINEAR_TO_CONV,
    Layout,
    Rule,
    State,
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


def official_block(architecture: Architecture, number: int) -> Iterator[Rule]:
    """Rules for one block of the authors."""
    source, target = _slim.expanded_conv("MobilenetV3", number), f"backbone.features.{number}.block"
    layers = (*["expand"] * (number > 1), "depthwise", *["squeeze_excite"] * (number in architecture.squeezed), "project")
    for position, name in enumerate(layers):
        if name == "squeeze_excite":
            yield from _slim.biased(f"{source}.{name}.Conv", f"{target}.{position}.fc1")
            yield from _slim.biased(f"{source}.{name}.Conv_1", f"{target}.{position}.fc2")
        else:
            yield from _slim.conv_norm(f"{source}.{name}", f"{target}.{position}")


def official(architecture: Architecture) -> Layout:
    """A layout of the authors, with 1001 classes; the first class is the background."""
    required, forbidden = conditions(
        {
            "MobilenetV3.expanded_conv.squeeze_excite.Conv.weights": 1 in architecture.squeezed,
            "MobilenetV3.expanded_conv_3.squeeze_excite.Conv.weights": 4 in architecture.squeezed,
            "MobilenetV3.expanded_conv_14.depthwise.depthwise_weights": sum(architecture.depths) == 15,
        }
    )
    return Layout(
        "official",
        (
            *_slim.conv_norm("MobilenetV3.Conv", "backbone.features.0"),
            *(rule for number in range(1, sum(architecture.depths) + 1) for rule in official_block(architecture, number)),
            *_slim.conv_norm("MobilenetV3.Conv_1", "backbone.pooling.conv"),
            *_slim.biased("MobilenetV3.Conv_2", "backbone.pooling.hidden", _slim.LINEAR_KERNEL),
            *_slim.biased("MobilenetV3.Logits.Conv2d_1c_1x1", "head.linear", _slim.LINEAR_KERNEL),
        ),
        options={"tf_padding": True},
        required=required,
        forbidden=forbidden,
        writable=False,
    )


def conditions(names: dict[str, bool]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the required and the forbidden names of a layout. `names`: whether its files contain them."""
    return tuple(name for name in names if names[name]), tuple(name for name in names if not names[name])


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
    required, forbidden = conditions(
        {
            "blocks.0.0.se.conv_reduce.weight": 1 in architecture.squeezed,
            "blocks.2.0.se.conv_reduce.weight": 4 in architecture.squeezed,
            "blocks.5.0.conv_dw.weight": stages == 6,
        }
    )
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
        required=required,
        forbidden=forbidden,
    )


def openmmlab(architecture: Architecture) -> Layout:
    """A layout of OpenMMLab, where the hidden layer is a part of the head."""
    expand, depthwise, project = ((f"{name}_conv.conv", f"{name}_conv.bn") for name in ("expand", "depthwise", "linear"))
    names = BlockNames(expand, depthwise, ("se.conv1.conv", "se.conv2.conv"), project)
    first = names._replace(expand=None)
    last = sum(architecture.depths)
    required, forbidden = conditions({"backbone.layer1.se.conv1.conv.weight": architecture is SMALL})
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
    required, forbidden = conditions({"features.1.conv.3.fc.0.weight": architecture is SMALL})
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


def openmmlab_segmenter(architecture: Architecture) -> Layout:
    """A layout of OpenMMLab's LRASPPHead, whose backbone pads as TensorFlow and ends with the last 1x1 convolution."""
    layout = openmmlab(architecture)
    return replace(
        layout,
        rules=(
            *conv_norm("decode_head.aspp_conv", "head.conv"),
            Rule("decode_head.image_pool.1.conv.weight", "head.scale.weight"),
            Rule("decode_head.conv_up_input.*", "head.coarse.*"),
            *(Rule(f"decode_head.convs.conv{i}.weight", f"head.branches.{i}.weight") for i in range(2)),
            *(rule for i in range(2) for rule in conv_norm(f"decode_head.conv_ups.conv_up{i}", f"head.joins.{i}")),
            Rule("decode_head.conv_seg.*", "head.high_classifier.*"),
            *layout.rules,
        ),
        options={"output_stride": 8, "last_conv": True, "first_blocks": False, "stride_2_map": True, "tf_padding": True},
        head_options=lraspp_options,
        required=(*layout.required, "decode_head.aspp_conv.conv.weight"),
    )


def lraspp_options(state: State) -> Options:
    """Options of OpenMMLab's LRASPPHead."""
    widths = tuple(len(state[name]) for i in range(2) if (name := f"head.branches.{i}.weight") in state)
    if len(widths) < 2:
        return {}
    published = {"levels": (0, 1, -1), "windows": True, "norm_eps": 1e-3}
    return {**published, "channels": len(state["head.scale.weight"]), "branch_channels": widths}


# mobilenetv3_rw has TensorFlow's epsilon, and no bias in the layer after the pooling.
TIMM_RW = replace(timm("timm", LARGE, {}), forbidden=("conv_head.bias",), input_settings=IMAGENET_BICUBIC)
TIMM_RW = replace(TIMM_RW, required=(*TIMM_RW.required, "conv_head.weight"))
# The mean of timm's files differs: ImageNet's, 0 or 0.5.
TIMM = (TIMM_RW, *(timm("timm", architecture, {"norm_eps": 1e-5}) for architecture in (LARGE, SMALL)))
# timm's `tf_` files have the same names and TensorFlow's weights, so their layout must be given. Only they include the
# minimalistic networks.
ARCHITECTURES = (LARGE, SMALL, LARGE_MINIMAL, SMALL_MINIMAL)
TIMM_TF = tuple(timm("timm_tf", architecture, {"tf_padding": True}) for architecture in ARCHITECTURES)
OFFICIAL = tuple(map(official, ARCHITECTURES))
SEGMENTERS = (openmmlab_segmenter(LARGE), openmmlab_segmenter(SMALL))
OTHERS = (openmmlab(LARGE), openmmlab(SMALL), *SEGMENTERS, d_li14(LARGE), d_li14(SMALL))

LAYOUTS = (
    *with_input_settings(replace(HALF, interpolation="bilinear"), OFFICIAL),
    *with_input_settings(IMAGENET, (*TORCHVISION, TORCHVISION_SEGMENTER)),
    *TIMM,
    *with_input_settings(replace(HALF, interpolation="bilinear"), TIMM_TF),
    *with_input_settings(IMAGENET, OTHERS),
)
