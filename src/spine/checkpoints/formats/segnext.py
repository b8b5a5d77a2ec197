"""SegNeXt: tensor names of the authors and OpenMMLab, for classifiers and whole segmentation networks."""

from __future__ import annotations

from functools import partial

from spine.checkpoints.input_settings import IMAGENET
from spine.checkpoints.mapping import Layout, Rule, State, with_input_settings
from spine.option_types import Options


def encoder(prefix: str, depthwise: str) -> tuple[Rule, ...]:
    """Rules for the encoder. `depthwise`: name of the 3x3 convolution of the MLP."""
    source, target = f"{prefix}block*.*", "backbone.block.*.*"
    return (
        Rule(f"{prefix}patch_embed*.**", "backbone.patch_embed.*.**"),
        Rule(f"{source}.attn.**", f"{target}.attn.**"),
        Rule(f"{source}.mlp.{depthwise}.*", f"{target}.mlp.dwconv.*"),
        *(Rule(f"{source}.{part}.*", f"{target}.{part}.*") for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")),
        Rule(f"{source}.layer_scale_*", f"{target}.layer_scale_*"),
        Rule(f"{prefix}norm*.*", "backbone.norm.*.*"),
    )


def hamburger_options(state: State, large_rank: int) -> Options:
    """Channels and rank of the head: 256 channels and rank 16 for T and S; B (512) and L (1024) have `large_rank`."""
    squeeze = state.get("head.squeeze.conv.weight")
    return {} if squeeze is None else {"channels": len(squeeze), "rank": 16 if len(squeeze) <= 256 else large_rank}


CLASSIFIER = Rule("head.*", "head.linear.*")
DECODE_HEAD = Rule("decode_head.**", "head.**")

OFFICIAL = Layout("official", (*encoder("", "dwconv.dwconv"), CLASSIFIER), wrapper="state_dict")
OFFICIAL_SEGMENTER = Layout(
    "official",
    (*encoder("backbone.", "dwconv.dwconv"), DECODE_HEAD),
    head_options=partial(hamburger_options, large_rank=64),
    wrapper="state_dict",
)
OPENMMLAB_SEGMENTER = Layout(
    "openmmlab",
    (*encoder("backbone.", "dwconv"), DECODE_HEAD),
    head_options=partial(hamburger_options, large_rank=16),  # its configurations of B and L inherit the rank of T
    wrapper="state_dict",
)
OPENMMLAB = Layout("openmmlab", (*encoder("", "dwconv"), CLASSIFIER), wrapper="state_dict")

LAYOUTS = with_input_settings(IMAGENET, (OFFICIAL, OFFICIAL_SEGMENTER, OPENMMLAB_SEGMENTER, OPENMMLAB))
