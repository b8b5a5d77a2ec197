"""BEiT as Hugging Face and OpenMMLab publish it."""

from __future__ import annotations

import dataclasses

from spine.checkpoints.input_settings import HALF
from spine.checkpoints.mapping import JOIN, Layout, Rule

TABLE = "relative_position_bias.relative_position_bias_table"


OUR_TABLE = "rel_pos_bias.relative_position_bias_table"


def hugging_face(layers: str, shared: str, table: str, attention: str, qkv: str, parts: dict[str, str]) -> Layout:
    """Fine-tuned and pre-training, by the names of the parts of a block. Query, key and value are three layers, the key has no bias."""
    query, _, value = (f"{layers}.*.{attention}.{name}" for name in qkv.split())
    parts = {"layernorm_before": "norm1", "layernorm_after": "norm2", **parts}
    return Layout(
        "hf",
        (
            Rule("beit.embeddings.cls_token", "backbone.cls_token"),
            Rule("beit.embeddings.mask_token", "backbone.mask_token"),
            Rule("beit.embeddings.patch_embeddings.projection.*", "backbone.patch_embed.proj.*"),
            Rule(f"{shared}.relative_position_index", None),
            Rule(f"{shared}.relative_position_bias_table", f"backbone.{OUR_TABLE}"),
            Rule(f"{layers}.*.{table.replace('bias_table', 'index')}", None),
            Rule(f"{layers}.*.{table}", f"backbone.blocks.*.attn.{OUR_TABLE}"),
            Rule(
                tuple(f"{layers}.*.{attention}.{name}.weight" for name in qkv.split()), "backbone.blocks.*.attn.qkv.weight", JOIN
            ),
            Rule(f"{query}.bias", "backbone.blocks.*.attn.q_bias"),
            Rule(f"{value}.bias", "backbone.blocks.*.attn.v_bias"),
            *(Rule(f"{layers}.*.{part}.*", f"backbone.blocks.*.{own}.*") for part, own in parts.items()),
            *(Rule(f"{layers}.*.lambda_{i}", f"backbone.blocks.*.gamma_{i}") for i in (1, 2)),
            Rule("layernorm.*", "backbone.norm.*"),
            Rule("beit.pooler.layernorm.*", "backbone.pooling.norm.*"),
            Rule("classifier.*", "head.linear.*"),
            Rule("lm_head.*", "head.lm_head.*"),
        ),
        options={"norm_eps": 1e-12},
        input=HALF,
    )


FILE = hugging_face(  # names of files, which every version reads and writes
    "beit.encoder.layer",
    "beit.encoder.relative_position_bias",
    f"attention.attention.{TABLE}",
    "attention.attention",
    "query key value",
    {"attention.output.dense": "attn.proj", "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2"},
)


MEMORY = hugging_face(  # what transformers 5 calls them once they are read
    "beit.layers",
    "beit.shared_position_bias",
    TABLE,
    "attention",
    "q_proj k_proj v_proj",
    {"attention.o_proj": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"},
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
        Rule("backbone.layers.*.attn.relative_position_bias_table", f"backbone.blocks.*.attn.{OUR_TABLE}"),
        Rule("backbone.layers.*.ln1.*", "backbone.blocks.*.norm1.*"),
        Rule("backbone.layers.*.ln2.*", "backbone.blocks.*.norm2.*"),
        Rule("backbone.layers.*.ffn.layers.0.0.*", "backbone.blocks.*.mlp.fc1.*"),
        Rule("backbone.layers.*.ffn.layers.1.*", "backbone.blocks.*.mlp.fc2.*"),
        Rule("backbone.layers.**", "backbone.blocks.**"),
        Rule("backbone.ln1.*", "backbone.norm.*"),
        Rule("backbone.ln2.*", "backbone.pooling.norm.*"),
        Rule("head.fc.*", "head.linear.*"),
        Rule("head.cls_head.*", "head.lm_head.*"),
        Rule("target_generator.**", None),  # the tokenizer
    ),
    wrapper="state_dict",
)


OTHER_PUBLISHERS = (FILE, MEMORY, OPENMMLAB)


# The authors' files hold `model`, and in it these names: pre-training has `norm`, one table of offsets and `lm_head`, fine-tuning a
# table a block, `fc_norm` and `head`.
OFFICIAL = Layout(
    "official",
    (
        Rule("cls_token", "backbone.cls_token"),
        Rule("mask_token", "backbone.mask_token"),
        Rule("patch_embed.**", "backbone.patch_embed.**"),
        Rule("rel_pos_bias.relative_position_index", None),
        Rule("rel_pos_bias.**", "backbone.rel_pos_bias.**"),
        Rule("blocks.*.attn.relative_position_index", None),
        Rule("blocks.*.attn.relative_position_bias_table", "backbone.blocks.*.attn.rel_pos_bias.relative_position_bias_table"),
        Rule("blocks.**", "backbone.blocks.**"),
        Rule("norm.*", "backbone.norm.*"),
        Rule("fc_norm.*", "backbone.pooling.norm.*"),
        Rule("head.*", "head.linear.*"),
        Rule("lm_head.*", "head.lm_head.*"),
    ),
    wrapper="model",
    input=dataclasses.replace(HALF, interpolation="bicubic"),
)


LAYOUTS = (OFFICIAL, dataclasses.replace(OFFICIAL, publisher="timm", wrapper=None), *OTHER_PUBLISHERS)
