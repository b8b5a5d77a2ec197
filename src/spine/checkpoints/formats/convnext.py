"""ConvNeXt: tensor names of the authors, timm, torchvision, Hugging Face and OpenMMLab."""

from __future__ import annotations

from spine.checkpoints.formats._segmentation import HUGGING_FACE as HUGGING_FACE_NAMES
from spine.checkpoints.formats._segmentation import upernet, upernet_options
from spine.checkpoints.input_settings import IMAGENET, IMAGENET_BICUBIC
from spine.checkpoints.mapping import Layout, Rule, TensorConversion, with_input_settings

LAYER_SCALE = TensorConversion(lambda x: x.flatten(), lambda x: (x[:, None, None],))  # torchvision: (C, 1, 1)

# The authors' files have these names under `model`. Backbones for dense tasks have one norm for each level.
OFFICIAL = Layout(
    "official",
    (
        Rule("downsample_layers.**", "backbone.downsample_layers.**"),
        Rule("stages.**", "backbone.stages.**"),
        Rule("stem.*", "backbone.stem.*"),
        Rule("blocks.**", "backbone.blocks.**"),
        Rule("norm.*", "backbone.pooling.norm.*"),
        Rule("norm*.*", "backbone.norms.*.*"),
        Rule("head.*", "head.linear.*"),
    ),
    wrapper="model",
    input_settings=IMAGENET_BICUBIC,
)
OFFICIAL_DENSE = Layout(  # with UPerNet
    "official",
    (
        Rule("backbone.downsample_layers.**", "backbone.downsample_layers.**"),
        Rule("backbone.stages.**", "backbone.stages.**"),
        Rule("backbone.norm*.*", "backbone.norms.*.*"),
        *upernet(),
    ),
    head_options=upernet_options,
    required=("decode_head.bottleneck.conv.weight",),
    forbidden=("backbone.stages.0.0.depthwise_conv.weight",),  # OpenMMLab
    wrapper="state_dict",
    input_settings=IMAGENET_BICUBIC,
)
TIMM = Layout(
    "timm",
    (
        Rule("stem.**", "backbone.downsample_layers.0.**"),
        Rule("stages.*.downsample.**", "backbone.downsample_layers.*.**"),
        Rule("stages.*.blocks.*.conv_dw.*", "backbone.stages.*.*.dwconv.*"),
        Rule("stages.*.blocks.*.mlp.fc1.*", "backbone.stages.*.*.pwconv1.*"),
        Rule("stages.*.blocks.*.mlp.fc2.*", "backbone.stages.*.*.pwconv2.*"),
        Rule("stages.*.blocks.*.**", "backbone.stages.*.*.**"),
        Rule("head.norm.*", "backbone.pooling.norm.*"),
        Rule("head.fc.*", "head.linear.*"),
    ),
)


def torchvision_stage(stage: int) -> tuple[Rule, ...]:
    """Rules for the blocks of a stage (0 to 3)."""
    source, target = f"features.{2 * stage + 1}.*", f"backbone.stages.{stage}.*"
    return (
        Rule(f"{source}.block.0.*", f"{target}.dwconv.*"),
        Rule(f"{source}.block.2.*", f"{target}.norm.*"),
        Rule(f"{source}.block.3.*", f"{target}.pwconv1.*"),
        Rule(f"{source}.block.5.*", f"{target}.pwconv2.*"),
        Rule(f"{source}.layer_scale", f"{target}.gamma", LAYER_SCALE),
    )


TORCHVISION = Layout(
    "torchvision",
    (
        Rule("features.0.**", "backbone.downsample_layers.0.**"),
        *(Rule(f"features.{2 * i}.**", f"backbone.downsample_layers.{i}.**") for i in (1, 2, 3)),
        *(rule for stage in range(4) for rule in torchvision_stage(stage)),
        Rule("classifier.0.*", "backbone.pooling.norm.*"),
        Rule("classifier.2.*", "head.linear.*"),
    ),
)


def hugging_face_encoder(prefix: str) -> tuple[Rule, ...]:
    """Rules for the encoder at Hugging Face, without its last norms."""
    return (
        Rule(f"{prefix}.embeddings.patch_embeddings.*", "backbone.downsample_layers.0.0.*"),
        Rule(f"{prefix}.embeddings.layernorm.*", "backbone.downsample_layers.0.1.*"),
        Rule(f"{prefix}.encoder.stages.*.downsampling_layer.**", "backbone.downsample_layers.*.**"),
        Rule(f"{prefix}.encoder.stages.*.layers.*.layernorm.*", "backbone.stages.*.*.norm.*"),
        Rule(f"{prefix}.encoder.stages.*.layers.*.layer_scale_parameter", "backbone.stages.*.*.gamma"),
        Rule(f"{prefix}.encoder.stages.*.layers.*.**", "backbone.stages.*.*.**"),
    )


HUGGING_FACE = Layout(
    "hf",
    (
        *hugging_face_encoder("convnext"),
        Rule("convnext.layernorm.*", "backbone.pooling.norm.*"),
        Rule("classifier.*", "head.linear.*"),
    ),
    options={"pool_norm_eps": 1e-12},
)
HUGGING_FACE_DENSE = Layout(  # UperNetForSemanticSegmentation
    "hf",
    (
        *hugging_face_encoder("backbone"),
        *(Rule(f"backbone.hidden_states_norms.stage{i + 1}.*", f"backbone.norms.{i}.*") for i in range(4)),
        *upernet(HUGGING_FACE_NAMES, classifier="classifier"),
    ),
    head_options=upernet_options,
    required=("backbone.hidden_states_norms.stage1.weight",),
)
OPENMMLAB_ENCODER = (
    Rule("backbone.downsample_layers.**", "backbone.downsample_layers.**"),
    Rule("backbone.stages.*.*.depthwise_conv.*", "backbone.stages.*.*.dwconv.*"),
    Rule("backbone.stages.*.*.pointwise_conv1.*", "backbone.stages.*.*.pwconv1.*"),
    Rule("backbone.stages.*.*.pointwise_conv2.*", "backbone.stages.*.*.pwconv2.*"),
    Rule("backbone.stages.*.*.norm.*", "backbone.stages.*.*.norm.*"),
    Rule("backbone.stages.*.*.gamma", "backbone.stages.*.*.gamma"),
)
OPENMMLAB = Layout(
    "openmmlab",
    (*OPENMMLAB_ENCODER, Rule("backbone.norm3.*", "backbone.pooling.norm.*"), Rule("head.fc.*", "head.linear.*")),
    forbidden=("backbone.norm2.weight",),
)
OPENMMLAB_DENSE = Layout(  # with UPerNet
    "openmmlab",
    (*OPENMMLAB_ENCODER, Rule("backbone.norm*.*", "backbone.norms.*.*"), *upernet()),
    head_options=upernet_options,
    required=("backbone.norm2.weight",),
    wrapper="state_dict",
)

LAYOUTS = with_input_settings(
    IMAGENET,
    (OFFICIAL, OFFICIAL_DENSE, TIMM, TORCHVISION, HUGGING_FACE, HUGGING_FACE_DENSE, OPENMMLAB, OPENMMLAB_DENSE),
)
