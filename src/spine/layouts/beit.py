"""BEiT as Hugging Face and OpenMMLab publish it."""

from __future__ import annotations

from spine.inputs import HALF
from spine.names import JOIN, Layout, Row

TABLE = "relative_position_bias.relative_position_bias_table"
OUR_TABLE = "rel_pos_bias.relative_position_bias_table"


def hugging_face(layers: str, shared: str, table: str, attention: str, qkv: str, parts: dict[str, str]) -> Layout:
    """Fine-tuned and pre-training, by the names of the parts of a block. Query, key and value are three layers, the key has no bias."""
    query, _, value = (f"{layers}.*.{attention}.{name}" for name in qkv.split())
    parts = {"layernorm_before": "norm1", "layernorm_after": "norm2", **parts}
    return Layout(
        "hf",
        (
            Row("beit.embeddings.cls_token", "backbone.cls_token"),
            Row("beit.embeddings.mask_token", "backbone.mask_token"),
            Row("beit.embeddings.patch_embeddings.projection.*", "backbone.patch_embed.proj.*"),
            Row(f"{shared}.relative_position_index", None),
            Row(f"{shared}.relative_position_bias_table", f"backbone.{OUR_TABLE}"),
            Row(f"{layers}.*.{table.replace('bias_table', 'index')}", None),
            Row(f"{layers}.*.{table}", f"backbone.blocks.*.attn.{OUR_TABLE}"),
            Row(
                tuple(f"{layers}.*.{attention}.{name}.weight" for name in qkv.split()), "backbone.blocks.*.attn.qkv.weight", JOIN
            ),
            Row(f"{query}.bias", "backbone.blocks.*.attn.q_bias"),
            Row(f"{value}.bias", "backbone.blocks.*.attn.v_bias"),
            *(Row(f"{layers}.*.{part}.*", f"backbone.blocks.*.{own}.*") for part, own in parts.items()),
            *(Row(f"{layers}.*.lambda_{i}", f"backbone.blocks.*.gamma_{i}") for i in (1, 2)),
            Row("layernorm.*", "backbone.norm.*"),
            Row("beit.pooler.layernorm.*", "backbone.pooling.norm.*"),
            Row("classifier.*", "head.linear.*"),
            Row("lm_head.*", "head.lm_head.*"),
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
        Row("backbone.cls_token", "backbone.cls_token"),
        Row("backbone.mask_token", "backbone.mask_token"),
        Row("backbone.patch_embed.projection.*", "backbone.patch_embed.proj.*"),
        Row("backbone.rel_pos_bias.relative_position_index", None),
        Row("backbone.rel_pos_bias.**", "backbone.rel_pos_bias.**"),
        Row("backbone.layers.*.attn.relative_position_index", None),
        Row("backbone.layers.*.attn.relative_position_bias_table", f"backbone.blocks.*.attn.{OUR_TABLE}"),
        Row("backbone.layers.*.ln1.*", "backbone.blocks.*.norm1.*"),
        Row("backbone.layers.*.ln2.*", "backbone.blocks.*.norm2.*"),
        Row("backbone.layers.*.ffn.layers.0.0.*", "backbone.blocks.*.mlp.fc1.*"),
        Row("backbone.layers.*.ffn.layers.1.*", "backbone.blocks.*.mlp.fc2.*"),
        Row("backbone.layers.**", "backbone.blocks.**"),
        Row("backbone.ln1.*", "backbone.norm.*"),
        Row("backbone.ln2.*", "backbone.pooling.norm.*"),
        Row("head.fc.*", "head.linear.*"),
        Row("head.cls_head.*", "head.lm_head.*"),
        Row("target_generator.**", None),  # the tokenizer
    ),
    wrapper="state_dict",
)

LAYOUTS = (FILE, MEMORY, OPENMMLAB)
