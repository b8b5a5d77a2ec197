"""MAE as Hugging Face and OpenMMLab publish it, and how a file's pooling is told."""

from __future__ import annotations

import dataclasses

from spine.checkpoints.input_settings import IMAGENET_BICUBIC
from spine.checkpoints.mapping import JOIN, Layout, Rule, with_input


def by_pooling(layout: Layout, norm: str, head: str, probe: tuple[Rule, ...] = ()) -> tuple[Layout, ...]:
    """A publisher's files: fine-tuned on the mean of the patches, on the class token, linear probes, pre-training.

    `norm` and `head` name the last norm of all tokens and the last layer; `probe`: rows of a probe's batch norm (first) and last layer.
    """
    pooled = dataclasses.replace(layout, forbidden=(f"{norm}.weight",))
    token = dataclasses.replace(
        layout,
        rows=(Rule(f"{norm}.*", "backbone.pooling.norm.*"), *layout.rows),
        options={**layout.options, "global_pool": "token"},
        required=(f"{norm}.weight", f"{head}.weight"),
    )
    if not probe:
        return pooled, token, layout
    batch_norm = str(probe[0].theirs).replace("*", "running_mean")
    needs = (f"{norm}.weight", batch_norm)
    probed = dataclasses.replace(token, rows=(*probe, *token.rows), head_options={"batch_norm": True}, required=needs)
    return pooled, token, probed, layout


def blocks(theirs: str, ours: str, parts: dict[str, str], attention: str, qkv: str) -> tuple[Rule, ...]:
    """Rows of Hugging Face's blocks, whose query, key and value are three layers."""
    rows = [Rule(f"{theirs}.*.{part}.*", f"{ours}.*.{own}.*") for part, own in parts.items()]
    for kind in ("weight", "bias"):
        names = tuple(f"{theirs}.*.{attention}.{name}.{kind}" for name in qkv.split())
        rows.append(Rule(names, f"{ours}.*.attn.qkv.{kind}", JOIN))
    return tuple(rows)


def hugging_face(layers: str, attention: str, qkv: str, parts: dict[str, str], decoder: str = "decoder.decoder_layers") -> Layout:
    """Pre-training, by the names of the parts of a block."""
    parts = {"layernorm_before": "norm1", "layernorm_after": "norm2", **parts}
    return Layout(
        "hf",
        (
            Rule("vit.embeddings.cls_token", "backbone.cls_token"),
            Rule("vit.embeddings.position_embeddings", "backbone.pos_embed"),
            Rule("vit.embeddings.patch_embeddings.projection.*", "backbone.patch_embed.proj.*"),
            *blocks(layers, "backbone.blocks", parts, attention, qkv),
            Rule("vit.layernorm.*", "backbone.norm.*"),
            *blocks(decoder, "head.decoder_blocks", parts, attention, qkv),
            *(Rule(f"decoder.decoder_{part}.*", f"head.decoder_{part}.*") for part in ("embed", "norm", "pred")),
            Rule("decoder.*", "head.*"),
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
        Rule("backbone.cls_token", "backbone.cls_token"),
        Rule("backbone.pos_embed", "backbone.pos_embed"),
        Rule("backbone.patch_embed.projection.*", "backbone.patch_embed.proj.*"),
        *(Rule(f"backbone.layers.*.{part}.*", f"backbone.blocks.*.{own}.*") for part, own in OPENMMLAB_PARTS.items()),
        Rule("backbone.layers.*.attn.**", "backbone.blocks.*.attn.**"),
        Rule("backbone.ln1.*", "backbone.norm.*"),
        Rule("backbone.ln2.*", "backbone.pooling.norm.*"),
        Rule("head.fc.*", "head.linear.*"),
        Rule("neck.mask_token", "head.mask_token"),
        Rule("neck.ln1.*", "head.decoder_norm.*"),
        *(Rule(f"neck.decoder_blocks.*.{part}.*", f"head.decoder_blocks.*.{own}.*") for part, own in OPENMMLAB_PARTS.items()),
        Rule("neck.decoder_**", "head.decoder_**"),
    ),
    wrapper="state_dict",
)


OTHER_PUBLISHERS = (
    *HUGGING_FACE,
    *by_pooling(
        OPENMMLAB, "backbone.ln1", "head.fc", (Rule("neck.bn.*", "head.norm.*"), Rule("head.layers.head.*", "head.linear.*"))
    ),
)


# The authors' files hold `model`, and in it these names: pre-training has `norm` and maybe the decoder, fine-tuning `fc_norm` and
# `head`, linear probing `norm` and `head.1` behind the batch norm `head.0`.
OFFICIAL = Layout(
    "official",
    (
        Rule("cls_token", "backbone.cls_token"),
        Rule("pos_embed", "backbone.pos_embed"),
        Rule("patch_embed.**", "backbone.patch_embed.**"),
        Rule("blocks.**", "backbone.blocks.**"),
        Rule("norm.*", "backbone.norm.*"),
        Rule("fc_norm.*", "backbone.pooling.norm.*"),
        Rule("head.*", "head.linear.*"),
        Rule("mask_token", "head.mask_token"),
        Rule("decoder_**", "head.decoder_**"),
    ),
    wrapper="model",
)


PROBE = (Rule("head.0.*", "head.norm.*"), Rule("head.1.*", "head.linear.*"))


TIMM = dataclasses.replace(OFFICIAL, publisher="timm", wrapper=None)


LAYOUTS = with_input(
    IMAGENET_BICUBIC, (*by_pooling(OFFICIAL, "norm", "head", PROBE), *by_pooling(TIMM, "norm", "head"), *OTHER_PUBLISHERS)
)
