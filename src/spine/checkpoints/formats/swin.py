"""Swin as timm, torchvision, Hugging Face and OpenMMLab publish it, and as the authors and OpenMMLab have it for dense tasks."""

from __future__ import annotations

from spine.checkpoints.input_settings import IMAGENET_BICUBIC
from spine.checkpoints.mapping import JOIN, Layout, Rule, TensorConversion, with_input

# of the four merged patches: theirs lie channel by channel, row, column (nn.Unfold); ours column by column, row, channel
MERGED = TensorConversion(
    lambda x: x.unflatten(-1, (-1, 2, 2)).transpose(-3, -1).flatten(-3),
    lambda x: (x.unflatten(-1, (2, 2, -1)).transpose(-3, -1).flatten(-3),),
)


OTHER_HEADS = (Rule("decode_head.**", None), Rule("auxiliary_head.**", None))


OFFICIAL_DENSE = Layout(
    "official",
    (
        Rule("backbone.patch_embed.**", "backbone.patch_embed.**"),
        Rule("backbone.layers.*.blocks.*.attn.relative_position_index", None),
        Rule("backbone.layers.*.blocks.**", "backbone.layers.*.blocks.**"),
        *(Rule(f"backbone.layers.{i}.downsample.**", f"backbone.layers.{i}.downsample.**") for i in range(3)),
        Rule("backbone.norm*.*", "backbone.norms.*.*"),
        *OTHER_HEADS,
    ),
    options={"small_maps": "shift"},
    required=("backbone.norm2.weight",),
    wrapper="state_dict",
)


TIMM = Layout(  # where windows do not tile a map, timm shifts it before it is padded; at the sizes of its files they do
    "timm",
    (
        Rule("patch_embed.**", "backbone.patch_embed.**"),
        Rule("layers.*.blocks.**", "backbone.layers.*.blocks.**"),
        *(Rule(f"layers.{i + 1}.downsample.**", f"backbone.layers.{i}.downsample.**") for i in range(3)),  # where a stage begins
        Rule("norm.*", "backbone.pooling.norm.*"),
        Rule("head.fc.*", "head.linear.*"),
    ),
)


TORCHVISION = Layout(
    "torchvision",
    (
        Rule("features.0.0.*", "backbone.patch_embed.proj.*"),
        Rule("features.0.2.*", "backbone.patch_embed.norm.*"),
        Rule("features.*.*.attn.relative_position_index", None),
        *(Rule(f"features.{2 * i + 1}.*.mlp.0.*", f"backbone.layers.{i}.blocks.*.mlp.fc1.*") for i in range(4)),
        *(Rule(f"features.{2 * i + 1}.*.mlp.3.*", f"backbone.layers.{i}.blocks.*.mlp.fc2.*") for i in range(4)),
        *(Rule(f"features.{2 * i + 1}.*.**", f"backbone.layers.{i}.blocks.*.**") for i in range(4)),
        *(Rule(f"features.{2 * i + 2}.**", f"backbone.layers.{i}.downsample.**") for i in range(3)),
        Rule("norm.*", "backbone.pooling.norm.*"),
        Rule("head.*", "head.linear.*"),
    ),
    options={"small_maps": "pad"},
)


def hugging_face(attention: str, qkv: str, table: str, parts: dict[str, str]) -> Layout:
    """By the names of the parts of a block, whose query, key and value are three layers."""
    theirs, ours = "swin.encoder.layers.*.blocks.*", "backbone.layers.*.blocks.*"
    parts = {"layernorm_before": "norm1", "layernorm_after": "norm2", **parts}
    return Layout(
        "hf",
        (
            Rule("swin.embeddings.patch_embeddings.projection.*", "backbone.patch_embed.proj.*"),
            Rule("swin.embeddings.norm.*", "backbone.patch_embed.norm.*"),
            *(
                Rule(tuple(f"{theirs}.{attention}.{name}.{kind}" for name in qkv.split()), f"{ours}.attn.qkv.{kind}", JOIN)
                for kind in ("weight", "bias")
            ),
            Rule(f"{theirs}.{table.replace('bias_table', 'index')}", None),
            Rule(f"{theirs}.{table}", f"{ours}.attn.relative_position_bias_table"),
            *(Rule(f"{theirs}.{part}.*", f"{ours}.{own}.*") for part, own in parts.items()),
            Rule("swin.encoder.layers.*.downsample.**", "backbone.layers.*.downsample.**"),
            Rule("swin.layernorm.*", "backbone.pooling.norm.*"),
            Rule("classifier.*", "head.linear.*"),
        ),
    )


FILE = hugging_face(  # names of files, which every version reads and writes
    "attention.self",
    "query key value",
    "attention.self.relative_position_bias_table",
    {"attention.output.dense": "attn.proj", "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2"},
)


MEMORY = hugging_face(  # what transformers 5 calls them once they are read
    "attention",
    "q_proj k_proj v_proj",
    "attention.relative_position_bias.relative_position_bias_table",
    {"attention.o_proj": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"},
)


OPENMMLAB_ROWS = (
    Rule("backbone.patch_embed.projection.*", "backbone.patch_embed.proj.*"),
    Rule("backbone.patch_embed.norm.*", "backbone.patch_embed.norm.*"),
    Rule("backbone.stages.*.blocks.*.attn.w_msa.relative_position_index", None),
    Rule("backbone.stages.*.blocks.*.attn.w_msa.**", "backbone.layers.*.blocks.*.attn.**"),
    Rule("backbone.stages.*.blocks.*.ffn.layers.0.0.*", "backbone.layers.*.blocks.*.mlp.fc1.*"),
    Rule("backbone.stages.*.blocks.*.ffn.layers.1.*", "backbone.layers.*.blocks.*.mlp.fc2.*"),
    Rule("backbone.stages.*.blocks.*.norm*.*", "backbone.layers.*.blocks.*.norm*.*"),
    Rule("backbone.stages.*.downsample.*.*", "backbone.layers.*.downsample.*.*", MERGED),
)


OPENMMLAB = Layout(
    "openmmlab",
    (*OPENMMLAB_ROWS, Rule("backbone.norm3.*", "backbone.pooling.norm.*"), Rule("head.fc.*", "head.linear.*")),
    forbidden=("backbone.norm2.weight",),
    wrapper="state_dict",
)


OPENMMLAB_DENSE = Layout(
    "openmmlab",
    (*OPENMMLAB_ROWS, Rule("backbone.norm*.*", "backbone.norms.*.*"), *OTHER_HEADS),
    options={"small_maps": "shift"},
    required=("backbone.norm2.weight",),
    wrapper="state_dict",
)


OTHER_PUBLISHERS = (OFFICIAL_DENSE, TIMM, TORCHVISION, FILE, MEMORY, OPENMMLAB, OPENMMLAB_DENSE)


# The authors' files hold `model`, and in it these names; the code for dense tasks has a norm a level (`spine.layouts.swin`).
OFFICIAL = Layout(
    "official",
    (
        Rule("patch_embed.**", "backbone.patch_embed.**"),
        Rule("layers.*.blocks.*.attn_mask", None),
        Rule("layers.*.blocks.*.attn.relative_position_index", None),
        Rule("layers.*.blocks.**", "backbone.layers.*.blocks.**"),
        *(Rule(f"layers.{i}.downsample.**", f"backbone.layers.{i}.downsample.**") for i in range(3)),
        Rule("norm.*", "backbone.pooling.norm.*"),
        Rule("head.*", "head.linear.*"),
    ),
    wrapper="model",
)


LAYOUTS = with_input(IMAGENET_BICUBIC, (OFFICIAL, *OTHER_PUBLISHERS))
