"""SegNeXt's whole segmenters, the authors' and OpenMMLab's, and the encoder as OpenMMLab has it."""

from __future__ import annotations

import functools
from typing import Any

from spine.checkpoints.input_settings import IMAGENET
from spine.checkpoints.mapping import Layout, Rule, State, with_input

HEAD = (Rule("decode_head.**", "head.**"),)


def encoder(prefix: str, depthwise: str) -> tuple[Rule, ...]:
    """Rows of the encoder; `depthwise`: what the MLP's 3x3 convolution is called."""
    theirs, ours = f"{prefix}block*.*", "backbone.block.*.*"
    return (
        Rule(f"{prefix}patch_embed*.**", "backbone.patch_embed.*.**"),
        Rule(f"{theirs}.attn.**", f"{ours}.attn.**"),
        Rule(f"{theirs}.mlp.{depthwise}.*", f"{ours}.mlp.dwconv.*"),
        *(Rule(f"{theirs}.{part}.*", f"{ours}.{part}.*") for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")),
        Rule(f"{theirs}.layer_scale_*", f"{ours}.layer_scale_*"),
        Rule(f"{prefix}norm*.*", "backbone.norm.*.*"),
    )


def hamburger(state: State, wide: int = 64) -> dict[str, Any]:
    """Widths and ranks of the heads: 256 and 16 for T and S, 512 for B and 1024 for L with rank `wide`."""
    squeeze = state.get("head.squeeze.conv.weight")
    return {} if squeeze is None else {"channels": len(squeeze), "rank": 16 if len(squeeze) <= 256 else wide}


OFFICIAL_SEGMENTER = Layout(
    "official", (*encoder("backbone.", "dwconv.dwconv"), *HEAD), head_options=hamburger, wrapper="state_dict"
)


OPENMMLAB_SEGMENTER = Layout(  # its configurations of B and L inherit T's rank
    "openmmlab",
    (*encoder("backbone.", "dwconv"), *HEAD),
    head_options=functools.partial(hamburger, wide=16),
    wrapper="state_dict",
)


OPENMMLAB = Layout("openmmlab", (*encoder("", "dwconv"), Rule("head.*", "head.linear.*")), wrapper="state_dict")


OTHER_PUBLISHERS = (OFFICIAL_SEGMENTER, OPENMMLAB_SEGMENTER, OPENMMLAB)


# The authors' names of classifiers; those of whole segmenters stand in `spine.layouts.segnext`.
OFFICIAL = Layout("official", (*encoder("", "dwconv.dwconv"), Rule("head.*", "head.linear.*")), wrapper="state_dict")


LAYOUTS = with_input(IMAGENET, (OFFICIAL, *OTHER_PUBLISHERS))
