"""BEiT: tensor names of the authors, timm, Hugging Face and OpenMMLab."""

from __future__ import annotations

from dataclasses import replace

from spine.checkpoints.formats._common import NAMES_IN_MEMORY, BlockNames, hugging_face_block, names_in_files, openmmlab_block
from spine.checkpoints.formats._segmentation import OPENMMLAB as OPENMMLAB_NAMES
from spine.checkpoints.formats._segmentation import TOKEN_PYRAMID, Names, upernet, upernet_options
from spine.checkpoints.input_settings import HALF, IMAGENET_BICUBIC
from spine.checkpoints.mapping import Layout, Rule

BIAS_TABLE = "relative_position_bias.relative_position_bias_table"  # Hugging Face
SPINE_BIAS_TABLE = "rel_pos_bias.relative_position_bias_table"

# The authors' files have these names under `model`. Pre-training files have `norm`, one relative position bias table and
# `lm_head`; fine-tuned files have a table for each block, `fc_norm` and `head`.
OFFICIAL = Layout(
    "official",
    (
        Rule("cls_token", "backbone.cls_token"),
        Rule("mask_token", "backbone.mask_token"),
        Rule("patch_embed.**", "backbone.patch_embed.**"),
        Rule("rel_pos_bias.relative_position_index", None),
        Rule("rel_pos_bias.**", "backbone.rel_pos_bias.**"),
        Rule("blocks.*.attn.relative_position_index", None),
        Rule("blocks.*.attn.relative_position_bias_table", f"backbone.blocks.*.attn.{SPINE_BIAS_TABLE}"),
        Rule("blocks.**", "backbone.blocks.**"),
        Rule("norm.*", "backbone.norm.*"),
        Rule("fc_norm.*", "backbone.pooling.norm.*"),
        Rule("head.*", "head.linear.*"),
        Rule("lm_head.*", "head.lm_head.*"),
    ),
    wrapper="model",
    input_settings=replace(HALF, interpolation="bicubic"),
)
TIMM = replace(OFFICIAL, publisher="timm", wrapper=None)
OFFICIAL_DENSE = Layout(  # with UPerNet
    "official",
    (
        Rule("backbone.cls_token", "backbone.cls_token"),
        Rule("backbone.patch_embed.**", "backbone.patch_embed.**"),
        Rule("backbone.blocks.*.attn.relative_position_index", None),
        Rule("backbone.blocks.*.attn.relative_position_bias_table", f"backbone.blocks.*.attn.{SPINE_BIAS_TABLE}"),
        Rule("backbone.blocks.**", "backbone.blocks.**"),
        *(rule._replace(source=f"backbone.{rule.source}") for rule in TOKEN_PYRAMID),
        *upernet(),
    ),
    head_options=upernet_options,
    required=("backbone.fpn1.0.weight",),
    wrapper="state_dict",
    input_settings=IMAGENET_BICUBIC,
)


def hugging_face(layers: str, shared_bias: str, block_bias: str, names: BlockNames, segmentation: tuple[Rule, ...]) -> Layout:
    """The layout of all networks, by the names of the blocks and of their bias tables, and the rules for UPerNet.

    The default configuration of transformers' segmentation network takes its maps two blocks earlier than
    the authors' code, with which its weights were trained. spine takes the authors' maps.
    """
    source, target = f"{layers}.*", "backbone.blocks.*"
    return Layout(
        "hf",
        (
            Rule("beit.embeddings.cls_token", "backbone.cls_token"),
            Rule("beit.embeddings.mask_token", "backbone.mask_token"),
            Rule("beit.embeddings.patch_embeddings.projection.*", "backbone.patch_embed.proj.*"),
            Rule(f"{shared_bias}.relative_position_index", None),
            Rule(f"{shared_bias}.relative_position_bias_table", f"backbone.{SPINE_BIAS_TABLE}"),
            Rule(f"{source}.{block_bias.replace('bias_table', 'index')}", None),
            Rule(f"{source}.{block_bias}", f"{target}.attn.{SPINE_BIAS_TABLE}"),
            *hugging_face_block(source, target, names, key_bias=False),
            *(Rule(f"{source}.lambda_{i}", f"{target}.gamma_{i}") for i in (1, 2)),
            Rule("layernorm.*", "backbone.norm.*"),
            Rule("beit.pooler.layernorm.*", "backbone.pooling.norm.*"),
            Rule("classifier.*", "head.linear.*"),
            Rule("lm_head.*", "head.lm_head.*"),
            *segmentation,
        ),
        options={"norm_eps": 1e-12},
        head_options=upernet_options,
        input_settings=HALF,
    )


LAYERS: Names = ("convolution", "normalization")
HF_FILES = hugging_face(
    "beit.encoder.layer",
    "beit.encoder.relative_position_bias",
    f"attention.attention.{BIAS_TABLE}",
    names_in_files(),
    (*TOKEN_PYRAMID, *upernet(OPENMMLAB_NAMES, classifier="classifier")),
)
HF_MEMORY = hugging_face(
    "beit.layers",
    "beit.shared_position_bias",
    BIAS_TABLE,
    NAMES_IN_MEMORY,
    (
        Rule("fpn.fpn1.conv_transpose1.*", "head.pyramid.scales.0.0.*"),
        Rule("fpn.fpn1.normalization.*", "head.pyramid.scales.0.1.*"),
        Rule("fpn.fpn1.conv_transpose2.*", "head.pyramid.scales.0.3.*"),
        Rule("fpn.fpn2.*", "head.pyramid.scales.1.*"),
        *upernet(LAYERS, pool="psp_modules.blocks.*.conv", bottleneck="psp_bottleneck", classifier="classifier"),
    ),
)
OPENMMLAB = Layout(
    "openmmlab",
    (
        Rule("backbone.cls_token", "backbone.cls_token"),
        Rule("backbone.mask_token", "backbone.mask_token"),
        Rule("backbone.patch_embed.projection.*", "backbone.patch_embed.proj.*"),
        Rule("backbone.rel_pos_bias.relative_position_index", None),
        Rule("backbone.rel_pos_bias.**", "backbone.rel_pos_bias.**"),
        Rule("backbone.layers.*.attn.relative_position_index", None),
        Rule("backbone.layers.*.attn.relative_position_bias_table", f"backbone.blocks.*.attn.{SPINE_BIAS_TABLE}"),
        *openmmlab_block("backbone.layers.*", "backbone.blocks.*"),
        Rule("backbone.layers.**", "backbone.blocks.**"),
        Rule("backbone.ln1.*", "backbone.norm.*"),
        Rule("backbone.ln2.*", "backbone.pooling.norm.*"),
        Rule("head.fc.*", "head.linear.*"),
        Rule("head.cls_head.*", "head.lm_head.*"),
        Rule("target_generator.**", None),  # the tokenizer
        Rule("neck.upsample_4x.*.*", "head.pyramid.scales.0.*.*"),
        Rule("neck.upsample_2x.0.*", "head.pyramid.scales.1.*"),
        *upernet(),
    ),
    head_options=upernet_options,
    wrapper="state_dict",
)

LAYOUTS = (OFFICIAL, OFFICIAL_DENSE, TIMM, HF_FILES, HF_MEMORY, OPENMMLAB)
