"""Rules for the heads of segmentation networks."""

from __future__ import annotations

import torch
from torch import Tensor

from spine.checkpoints.formats._common import conv_norm
from spine.checkpoints.mapping import Rule, State, TensorConversion
from spine.option_types import Options

Names = tuple[str, str]  # a convolution and its norm
OPENMMLAB: Names = ("conv", "bn")
HUGGING_FACE: Names = ("conv", "batch_norm")  # UperNetForSemanticSegmentation


def auxiliary_head(names: Names = OPENMMLAB, classifier: str = "conv_seg") -> tuple[Rule, ...]:
    """Rules for the auxiliary head, an FCN. `classifier`: name of its last layer."""
    return (
        *conv_norm("auxiliary_head.convs.*", "auxiliary_head.convs.*", names=names),
        *conv_norm("auxiliary_head.conv_cat", "auxiliary_head.concat", names=names),
        Rule(f"auxiliary_head.{classifier}.*", "auxiliary_head.classifier.*"),
    )


def upernet(
    names: Names = OPENMMLAB, pool: str = "psp_modules.*.1", bottleneck: str = "bottleneck", classifier: str = "conv_seg"
) -> tuple[Rule, ...]:
    """Rules for UPerNet and its auxiliary head.

    `pool`: name of the convolution of a pooled size; `bottleneck`: of the one that joins them.
    """
    parts = {pool: "pools.*", bottleneck: "bottleneck", "fpn_bottleneck": "fpn_bottleneck"}
    parts |= {f"{part}.*": f"{part}.*" for part in ("lateral_convs", "fpn_convs")}
    return (
        *(rule for source, target in parts.items() for rule in conv_norm(f"decode_head.{source}", f"head.{target}", names=names)),
        Rule(f"decode_head.{classifier}.*", "head.classifier.*"),
        *auxiliary_head(names, classifier),
    )


# The pyramid of BEiT's authors and of Hugging Face's files: spine numbers all maps.
TOKEN_PYRAMID = (Rule("fpn1.*.*", "head.pyramid.scales.0.*.*"), Rule("fpn2.0.*", "head.pyramid.scales.1.*"))


def separable(source: str, target: str) -> tuple[Rule, ...]:
    """Rules for OpenMMLab's DepthwiseSeparableConvModule."""
    layers = enumerate(("depthwise_conv", "pointwise_conv"))
    return tuple(rule for i, name in layers for rule in conv_norm(f"{source}.{name}", f"{target}.{i}"))


OPENMMLAB_ASPP = (  # DepthwiseSeparableASPPHead
    *conv_norm("decode_head.image_pool.1", "head.image_pool"),
    *separable("decode_head.aspp_modules.*", "head.branches.*"),
    *conv_norm("decode_head.aspp_modules.0", "head.branches.0"),
    *conv_norm("decode_head.bottleneck", "head.bottleneck"),
    *conv_norm("decode_head.c1_bottleneck", "head.low"),
    *separable("decode_head.sep_bottleneck.*", "head.decoder.*"),
    Rule("decode_head.conv_seg.*", "head.classifier.*"),
    *auxiliary_head(),
)
OPENMMLAB_FCN = (  # FCNHead, which reads the coarsest map
    *conv_norm("decode_head.convs.*", "head.convs.*"),
    *conv_norm("decode_head.conv_cat", "head.concat"),
    Rule("decode_head.conv_seg.*", "head.classifier.*"),
    *auxiliary_head(),
)
# FCNHead and OCRHead of a CascadeEncoderDecoder
OPENMMLAB_OCR = (
    Rule("decode_head.0.convs.0.conv.weight", "head.regions.0.weight"),  # without a bias, which the authors have
    Rule("decode_head.0.convs.0.bn.*", "head.regions.1.*"),
    Rule("decode_head.0.conv_seg.*", "head.regions.3.*"),
    Rule("decode_head.1.bottleneck.conv.weight", "head.pixels.0.weight"),
    Rule("decode_head.1.bottleneck.bn.*", "head.pixels.1.*"),
    *(
        rule
        for name in ("query", "key")
        for rule in conv_norm(f"decode_head.1.object_context_block.{name}_project.*", f"head.{name}.*")
    ),
    *conv_norm("decode_head.1.object_context_block.value_project", "head.value"),
    *conv_norm("decode_head.1.object_context_block.out_project", "head.context"),
    *conv_norm("decode_head.1.object_context_block.bottleneck", "head.fuse"),
    Rule("decode_head.1.conv_seg.*", "head.classifier.*"),
)


def split_branches(weight: Tensor) -> tuple[Tensor, ...]:
    """The parts of a 1x1 convolution of all maps of HRNet, of which each has twice the channels of the one before."""
    unit = weight.shape[1] // 15
    return weight.split([unit, 2 * unit, 4 * unit, 8 * unit], dim=1)


# Publisher: one 1x1 convolution of the concatenated maps; spine: one for each map.
JOIN = TensorConversion(split_branches, lambda *parts: (torch.cat(parts, dim=1),))
JOIN_TARGETS = tuple(f"head.join.{i}.weight" for i in range(4))


def fcn_options(state: State) -> Options:
    """Options of the head of HRNet's segmentation networks: one 1x1 convolution of all maps before the classifier."""
    first = state.get("head.join.0.weight")
    if first is None:
        return {}
    return {"channels": len(first), "num_convs": 0, "join_norm": True, "conv_bias": "head.join.0.bias" in state}


def coarse_fcn_options(state: State) -> Options:
    """Options of OpenMMLab's FCNHead, which reads the coarsest map."""
    layers = {name.split(".")[2] for name in state if name.startswith("head.convs.")}
    concat_input = "head.concat.0.weight" in state
    return {**upernet_options(state), "levels": (-1,), "join": False, "num_convs": len(layers), "concat_input": concat_input}


def aspp_options(state: State) -> Options:
    """Options of OpenMMLab's DepthwiseSeparableASPPHead."""
    return {**upernet_options(state), "bottleneck_kernel": 3} if "head.classifier.weight" in state else {}


def upernet_options(state: State) -> Options:
    """Options of UPerNet: the number of its channels."""
    classifier = state.get("head.classifier.weight")
    return {} if classifier is None else {"channels": classifier.shape[1]}
