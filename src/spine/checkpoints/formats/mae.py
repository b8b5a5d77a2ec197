"""MAE: tensor names of the authors, timm, Hugging Face and OpenMMLab. The names in a file determine its pooling."""

from __future__ import annotations

from dataclasses import replace

from spine.checkpoints.formats._common import (
    NAMES_IN_MEMORY,
    OPENMMLAB_VIT,
    TIMM_VIT,
    BlockNames,
    hugging_face_block,
    hugging_face_embeddings,
    names_in_files,
    openmmlab_block,
)
from spine.checkpoints.input_settings import IMAGENET_BICUBIC
from spine.checkpoints.mapping import Layout, Rule, with_input_settings

# The authors' files have these names under `model`. Pre-training files have `norm` and possibly the decoder, fine-tuned files
# `fc_norm` and `head`, linear probes `norm` and `head.1` after the batch norm `head.0`.
OFFICIAL = Layout(
    "official",
    (
        *TIMM_VIT,
        Rule("norm.*", "backbone.norm.*"),
        Rule("fc_norm.*", "backbone.pooling.norm.*"),
        Rule("head.*", "head.linear.*"),
        Rule("mask_token", "head.mask_token"),
        Rule("decoder_**", "head.decoder_**"),
    ),
    wrapper="model",
)
OFFICIAL_PROBE = (Rule("head.0.*", "head.norm.*"), Rule("head.1.*", "head.linear.*"))  # batch norm and classifier
TIMM = replace(OFFICIAL, publisher="timm", wrapper=None)


def hugging_face(layers: str, names: BlockNames, decoder_layers: str = "decoder.decoder_layers") -> Layout:
    """The layout of pre-training networks, by the names of the blocks of encoder and decoder."""
    return Layout(
        "hf",
        (
            *hugging_face_embeddings("vit."),
            *hugging_face_block(f"{layers}.*", "backbone.blocks.*", names),
            Rule("vit.layernorm.*", "backbone.norm.*"),
            *hugging_face_block(f"{decoder_layers}.*", "head.decoder_blocks.*", names),
            *(Rule(f"decoder.decoder_{part}.*", f"head.decoder_{part}.*") for part in ("embed", "norm", "pred")),
            Rule("decoder.*", "head.*"),
        ),
        options={"norm_eps": 1e-12},
        head_options={"norm_eps": 1e-12},
    )


HUGGING_FACE = (
    hugging_face("vit.encoder.layer", names_in_files()),  # files on the hub, which every version of transformers reads
    hugging_face("vit.encoder.layer", names_in_files(), "decoder.decoder_encoder.layer"),  # files written by version 5
    hugging_face("vit.layers", NAMES_IN_MEMORY),
)
OPENMMLAB = Layout(
    "openmmlab",
    (
        *OPENMMLAB_VIT,
        Rule("backbone.ln1.*", "backbone.norm.*"),
        Rule("backbone.ln2.*", "backbone.pooling.norm.*"),
        Rule("head.fc.*", "head.linear.*"),
        Rule("neck.mask_token", "head.mask_token"),
        Rule("neck.ln1.*", "head.decoder_norm.*"),
        *openmmlab_block("neck.decoder_blocks.*", "head.decoder_blocks.*"),
        Rule("neck.decoder_**", "head.decoder_**"),
    ),
    wrapper="state_dict",
)
OPENMMLAB_PROBE = (Rule("neck.bn.*", "head.norm.*"), Rule("head.layers.head.*", "head.linear.*"))


def by_pooling(layout: Layout, norm: str, head: str, probe: tuple[Rule, ...] = ()) -> tuple[Layout, ...]:
    """Returns the layouts of a publisher's files by pooling: mean of the patches, class token, linear probe, pre-training.

    `norm` and `head`: names of the last norm of all tokens and of the classifier. `probe`: rules for the
    batch norm and the classifier of linear probes, in this order.
    """
    mean = replace(layout, forbidden=(f"{norm}.weight",))
    class_token = replace(
        layout,
        rules=(Rule(f"{norm}.*", "backbone.pooling.norm.*"), *layout.rules),
        options={**layout.options, "global_pool": "token"},
        required=(f"{norm}.weight", f"{head}.weight"),
    )
    if not probe:
        return mean, class_token, layout
    linear_probe = replace(
        class_token,
        rules=(*probe, *class_token.rules),
        head_options={"batch_norm": True},
        required=(f"{norm}.weight", probe[0].sources[0].replace("*", "running_mean")),
    )
    return mean, class_token, linear_probe, layout


LAYOUTS = with_input_settings(
    IMAGENET_BICUBIC,
    (
        *by_pooling(OFFICIAL, "norm", "head", OFFICIAL_PROBE),
        *by_pooling(TIMM, "norm", "head"),
        *HUGGING_FACE,
        *by_pooling(OPENMMLAB, "backbone.ln1", "head.fc", OPENMMLAB_PROBE),
    ),
)
