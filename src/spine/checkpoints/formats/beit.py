"""BEiT: tensor names of the authors, timm, Hugging Face and OpenMMLab."""

from __future__ import annotations

from dataclasses import replace

from spine.checkpoints.formats._common import NAMES_IN_MEMORY, BlockNames, hugging_face_block, names_in_files, openmmlab_block
from spine.checkpoints.input_settings import HALF
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


def hugging_face(layers: str, shared_bias: str, block_bias: str, names: BlockNames) -> Layout:
    """The layout of pre-training and fine-tuned networks, by the names of the blocks and of their bias tables."""
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
        ),
        options={"norm_eps": 1e-12},
        input_settings=HALF,
    )


HF_FILES = hugging_face(
    "beit.encoder.layer", "beit.encoder.relative_position_bias", f"attention.attention.{BIAS_TABLE}", names_in_files()
)
HF_MEMORY = hugging_face("beit.layers", "beit.shared_position_bias", BIAS_TABLE, NAMES_IN_MEMORY)
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
    ),
    wrapper="state_dict",
)

LAYOUTS = (OFFICIAL, TIMM, HF_FILES, HF_MEMORY, OPENMMLAB)
