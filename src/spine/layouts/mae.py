"""MAE as Hugging Face and OpenMMLab publish it, and how a file's pooling is told."""

from __future__ import annotations

import dataclasses

from spine.names import JOIN, Layout, Row


def by_pooling(layout: Layout, norm: str, head: str, probe: tuple[Row, ...] = ()) -> tuple[Layout, ...]:
    """A publisher's files: fine-tuned on the mean of the patches, on the class token, linear probes, pre-training.

    `norm` and `head` name the last norm of all tokens and the last layer; `probe`: rows of a probe's batch norm (first) and last layer.
    """
    pooled = dataclasses.replace(layout, lacks=(f"{norm}.weight",))
    token = dataclasses.replace(
        layout,
        rows=(Row(f"{norm}.*", "backbone.pooling.norm.*"), *layout.rows),
        options={**layout.options, "global_pool": "token"},
        needs=(f"{norm}.weight", f"{head}.weight"),
    )
    if not probe:
        return pooled, token, layout
    batch_norm = str(probe[0].theirs).replace("*", "running_mean")
    needs = (f"{norm}.weight", batch_norm)
    probed = dataclasses.replace(token, rows=(*probe, *token.rows), head_options={"batch_norm": True}, needs=needs)
    return pooled, token, probed, layout


def blocks(theirs: str, ours: str, parts: dict[str, str], attention: str, qkv: str) -> tuple[Row, ...]:
    """Rows of Hugging Face's blocks, whose query, key and value are three layers."""
    rows = [Row(f"{theirs}.*.{part}.*", f"{ours}.*.{own}.*") for part, own in parts.items()]
    for kind in ("weight", "bias"):
        names = tuple(f"{theirs}.*.{attention}.{name}.{kind}" for name in qkv.split())
        rows.append(Row(names, f"{ours}.*.attn.qkv.{kind}", JOIN))
    return tuple(rows)


def hugging_face(layers: str, attention: str, qkv: str, parts: dict[str, str], decoder: str = "decoder.decoder_layers") -> Layout:
    """Pre-training, by the names of the parts of a block."""
    parts = {"layernorm_before": "norm1", "layernorm_after": "norm2", **parts}
    return Layout(
        "hf",
        (
            Row("vit.embeddings.cls_token", "backbone.cls_token"),
            Row("vit.embeddings.position_embeddings", "backbone.pos_embed"),
            Row("vit.embeddings.patch_embeddings.projection.*", "backbone.patch_embed.proj.*"),
            *blocks(layers, "backbone.blocks", parts, attention, qkv),
            Row("vit.layernorm.*", "backbone.norm.*"),
            *blocks(decoder, "head.decoder_blocks", parts, attention, qkv),
            *(Row(f"decoder.decoder_{part}.*", f"head.decoder_{part}.*") for part in ("embed", "norm", "pred")),
            Row("decoder.*", "head.*"),
        ),
        options={"norm_eps": 1e-12},
        head_options={"norm_eps": 1e-12},
    )


FILE = {"attention.output.dense": "attn.proj", "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2"}
MEMORY = {"attention.o_proj": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
HUGGING_FACE = (
    hugging_face(
        "vit.encoder.layer", "attention.attention", "query key value", FILE
    ),  # files on the hub, which every version reads
    # what version 5 writes: its renaming meets the decoder too
    hugging_face("vit.encoder.layer", "attention.attention", "query key value", FILE, "decoder.decoder_encoder.layer"),
    hugging_face("vit.layers", "attention", "q_proj k_proj v_proj", MEMORY),  # what it calls them in memory
)

OPENMMLAB_PARTS = {"ln1": "norm1", "ln2": "norm2", "ffn.layers.0.0": "mlp.fc1", "ffn.layers.1": "mlp.fc2"}
OPENMMLAB = Layout(
    "openmmlab",
    (
        Row("backbone.cls_token", "backbone.cls_token"),
        Row("backbone.pos_embed", "backbone.pos_embed"),
        Row("backbone.patch_embed.projection.*", "backbone.patch_embed.proj.*"),
        *(Row(f"backbone.layers.*.{part}.*", f"backbone.blocks.*.{own}.*") for part, own in OPENMMLAB_PARTS.items()),
        Row("backbone.layers.*.attn.**", "backbone.blocks.*.attn.**"),
        Row("backbone.ln1.*", "backbone.norm.*"),
        Row("backbone.ln2.*", "backbone.pooling.norm.*"),
        Row("head.fc.*", "head.linear.*"),
        Row("neck.mask_token", "head.mask_token"),
        Row("neck.ln1.*", "head.decoder_norm.*"),
        *(Row(f"neck.decoder_blocks.*.{part}.*", f"head.decoder_blocks.*.{own}.*") for part, own in OPENMMLAB_PARTS.items()),
        Row("neck.decoder_**", "head.decoder_**"),
    ),
    wrapper="state_dict",
)

LAYOUTS = (
    *HUGGING_FACE,
    *by_pooling(
        OPENMMLAB, "backbone.ln1", "head.fc", (Row("neck.bn.*", "head.norm.*"), Row("head.layers.head.*", "head.linear.*"))
    ),
)
