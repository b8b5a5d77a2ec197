"""MobileNetV2: tensor names of the authors (TensorFlow checkpoints, which Hugging Face has converted), torchvision, timm, Hugging
Face, OpenMMLab and d-li14 (github.com/d-li14/mobilenetv2.pytorch).
"""

from __future__ import annotations

from dataclasses import replace

from spine.checkpoints.formats import _slim
from spine.checkpoints.formats._common import conv_norm, numbered_blocks
from spine.checkpoints.formats._segmentation import OPENMMLAB_ASPP, OPENMMLAB_FCN, aspp_options, coarse_fcn_options
from spine.checkpoints.input_settings import HALF, IMAGENET
from spine.checkpoints.mapping import Layout, Rule, with_input_settings

DEPTHS = (1, 2, 3, 4, 3, 3, 1)  # blocks of each stage; the block of the first stage has no expansion
# Stage, index in the stage and index in `backbone.features` of the blocks with expansion.
BLOCKS = [block for block in numbered_blocks(DEPTHS, start=1) if block[0] > 0]
# timm's deeper networks, mobilenetv2_110d and mobilenetv2_120d
DEPTHS_110D, DEPTHS_120D = (1, 3, 4, 5, 4, 4, 1), (1, 3, 5, 6, 5, 5, 1)
PAPER_HEAD = {"levels": (-1,), "dilations": (), "channels": 256, "bottleneck_kernel": 1}  # of `aspp`

Layers = tuple[str, tuple[str, str]]  # a convolution and its norm: their prefix and their names


def first_block(depthwise: Layers, project: Layers) -> tuple[Rule, ...]:
    """Rules for the block without expansion."""
    return (
        *conv_norm(depthwise[0], "backbone.features.1.conv.0", names=depthwise[1]),
        *conv_norm(project[0], "backbone.features.1.conv", (1, 2), project[1]),
    )


def block(index: int | str, expand: Layers, depthwise: Layers, project: Layers) -> tuple[Rule, ...]:
    """Rules for a block with expansion. `index`: its index in `backbone.features`, or a wildcard."""
    target = f"backbone.features.{index}.conv"
    return (
        *conv_norm(expand[0], f"{target}.0", names=expand[1]),
        *conv_norm(depthwise[0], f"{target}.1", names=depthwise[1]),
        *conv_norm(project[0], target, (2, 3), project[1]),
    )


def official_block(number: int) -> tuple[Rule, ...]:
    """Rules for a block with expansion, at the authors."""
    source, target = _slim.expanded_conv("MobilenetV2", number), f"backbone.features.{number}.conv"
    return (
        *_slim.conv_norm(f"{source}.expand", f"{target}.0"),
        *_slim.conv_norm(f"{source}.depthwise", f"{target}.1"),
        *_slim.conv_norm(f"{source}.project", target, (2, 3)),
    )


OFFICIAL = Layout(  # with 1001 classes; the first class is the background
    "official",
    (
        *_slim.conv_norm("MobilenetV2.Conv", "backbone.features.0"),
        *_slim.conv_norm("MobilenetV2.expanded_conv.depthwise", "backbone.features.1.conv.0"),
        *_slim.conv_norm("MobilenetV2.expanded_conv.project", "backbone.features.1.conv", (1, 2)),
        *(rule for number in range(2, 18) for rule in official_block(number)),
        *_slim.conv_norm("MobilenetV2.Conv_1", "backbone.pooling.conv"),
        *_slim.biased("MobilenetV2.Logits.Conv2d_1c_1x1", "head.linear", _slim.LINEAR_KERNEL),
    ),
    options={"norm_eps": 1e-3, "tf_padding": True},
    input_settings=HALF,
    writable=False,
)
# The authors' segmentation network, in the repository of DeepLab: the paper's head, at the output stride of its training.
OFFICIAL_SEGMENTER = replace(
    OFFICIAL,
    rules=(
        *_slim.conv_norm("image_pooling", "head.image_pool"),
        *_slim.conv_norm("aspp0", "head.branches.0"),
        *_slim.conv_norm("concat_projection", "head.bottleneck"),
        *_slim.biased("logits.semantic", "head.classifier"),
        *OFFICIAL.rules,
    ),
    options={**OFFICIAL.options, "output_stride": 16, "dilate_first": False},
    head_options=PAPER_HEAD,
    required=("image_pooling.weights",),
)
TORCHVISION = Layout(
    "torchvision",
    (
        Rule("features.18.**", "backbone.pooling.conv.**"),
        Rule("features.**", "backbone.features.**"),
        Rule("classifier.1.*", "head.linear.*"),
    ),
    forbidden=("features.1.conv.0.weight",),  # the blocks of d-li14 are not nested
)


def timm_block(stage: int, i: int, index: int) -> tuple[Rule, ...]:
    """Rules for block `i` of a stage."""
    source = f"blocks.{stage}.{i}"
    return block(index, (source, ("conv_pw", "bn1")), (source, ("conv_dw", "bn2")), (source, ("conv_pwl", "bn3")))


def timm(depths: tuple[int, ...]) -> Layout:
    """A layout of timm. `depths`: blocks of each stage."""
    blocks = [block for block in numbered_blocks(depths, start=1) if block[0] > 0]
    distinctive = ("blocks.1.2.conv_pw.weight", "blocks.2.4.conv_pw.weight")  # in deeper networks only
    present = [name for name, stage, i in zip(distinctive, (1, 2), (2, 4), strict=True) if i < depths[stage]]
    return Layout(
        "timm",
        (
            Rule("conv_stem.*", "backbone.features.0.0.*"),
            Rule("bn1.*", "backbone.features.0.1.*"),
            *first_block(("blocks.0.0", ("conv_dw", "bn1")), ("blocks.0.0", ("conv_pw", "bn2"))),
            *(rule for stage, i, index in blocks for rule in timm_block(stage, i, index)),
            Rule("conv_head.*", "backbone.pooling.conv.0.*"),
            Rule("bn2.*", "backbone.pooling.conv.1.*"),
            Rule("classifier.*", "head.linear.*"),
        ),
        required=tuple(present),
        forbidden=tuple(name for name in distinctive if name not in present),
    )


TIMM = tuple(timm(depths) for depths in (DEPTHS, DEPTHS_110D, DEPTHS_120D))


def hf_layers(name: str) -> Layers:
    """A convolution and its norm at Hugging Face."""
    return f"mobilenet_v2.{name}", ("convolution", "normalization")


HUGGING_FACE = Layout(  # the authors' weights with 1001 classes; the first class is the background
    "hf",
    (
        *conv_norm("mobilenet_v2.conv_stem.first_conv", "backbone.features.0", names=("convolution", "normalization")),
        *first_block(hf_layers("conv_stem.conv_3x3"), hf_layers("conv_stem.reduce_1x1")),
        *(
            rule
            for i in range(16)
            for rule in block(i + 2, *(hf_layers(f"layer.{i}.{name}") for name in ("expand_1x1", "conv_3x3", "reduce_1x1")))
        ),
        *conv_norm("mobilenet_v2.conv_1x1", "backbone.pooling.conv", names=("convolution", "normalization")),
        Rule("classifier.*", "head.linear.*"),
    ),
    options={"norm_eps": 1e-3, "tf_padding": True},
    input_settings=HALF,
)
HF_HEAD = {"conv_pool": "image_pool", "conv_aspp": "branches.0", "conv_projection": "bottleneck"}
# MobileNetV2ForSemanticSegmentation: the paper's head, at the output stride of the files (the authors trained at 16)
HUGGING_FACE_SEGMENTER = replace(
    HUGGING_FACE,
    rules=(
        Rule("mobilenet_v2.conv_1x1.**", None),  # not used
        *(
            rule
            for source, target in HF_HEAD.items()
            for rule in conv_norm(f"segmentation_head.{source}", f"head.{target}", names=("convolution", "normalization"))
        ),
        Rule("segmentation_head.classifier.convolution.*", "head.classifier.*"),
        *HUGGING_FACE.rules,
    ),
    options={**HUGGING_FACE.options, "output_stride": 8, "dilate_first": False},
    head_options=PAPER_HEAD,
    required=("segmentation_head.conv_pool.convolution.weight",),
)


def openmmlab_layers(name: str) -> Layers:
    """A convolution and its norm at OpenMMLab."""
    return f"backbone.{name}", ("conv", "bn")


OPENMMLAB = Layout(
    "openmmlab",
    (
        *conv_norm("backbone.conv1", "backbone.features.0"),
        *first_block(openmmlab_layers("layer1.0.conv.0"), openmmlab_layers("layer1.0.conv.1")),
        *(
            rule
            for stage, i, index in BLOCKS
            for rule in block(index, *(openmmlab_layers(f"layer{stage + 1}.{i}.conv.{k}") for k in range(3)))
        ),
        *conv_norm("backbone.conv2", "backbone.pooling.conv"),
        Rule("head.fc.*", "head.linear.*"),
    ),
    wrapper="state_dict",
)
OPENMMLAB_FCN_SEGMENTER = replace(
    OPENMMLAB,
    rules=(*OPENMMLAB_FCN, *OPENMMLAB.rules),
    options={"output_stride": 8, "dilate_first": True},
    head_options=coarse_fcn_options,
    required=("decode_head.convs.0.conv.weight",),
)
OPENMMLAB_SEGMENTER = replace(  # DeepLabv3+
    OPENMMLAB,
    rules=(*OPENMMLAB_ASPP, *OPENMMLAB.rules),
    options={"output_stride": 8, "dilate_first": True},
    head_options=aspp_options,
    required=("decode_head.c1_bottleneck.conv.weight",),
)
D_LI14 = Layout(
    "d_li14",
    (
        Rule("features.0.*.*", "backbone.features.0.*.*"),
        *first_block(("features.1.conv", ("0", "1")), ("features.1.conv", ("3", "4"))),
        *block("*", *(("features.*.conv", names) for names in (("0", "1"), ("3", "4"), ("6", "7")))),
        Rule("conv.*.*", "backbone.pooling.conv.*.*"),
        Rule("classifier.*", "head.linear.*"),
    ),
)

LAYOUTS = with_input_settings(
    IMAGENET,
    (
        OFFICIAL,
        OFFICIAL_SEGMENTER,
        TORCHVISION,
        *TIMM,
        HUGGING_FACE,
        HUGGING_FACE_SEGMENTER,
        OPENMMLAB,
        OPENMMLAB_SEGMENTER,
        OPENMMLAB_FCN_SEGMENTER,
        D_LI14,
    ),
)
