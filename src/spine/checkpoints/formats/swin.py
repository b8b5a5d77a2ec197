"""Swin: tensor names of the authors (classification and dense tasks), timm, torchvision, Hugging Face and OpenMMLab."""

from __future__ import annotations

from spine.checkpoints.formats._common import NAMES_IN_MEMORY, BlockNames, hugging_face_block, names_in_files
from spine.checkpoints.formats._segmentation import HUGGING_FACE, upernet, upernet_options
from spine.checkpoints.input_settings import IMAGENET_BICUBIC
from spine.checkpoints.mapping import Layout, Rule, TensorConversion, with_input_settings

# The channels of four merged patches. OpenMMLab: channel, row, column (nn.Unfold); spine: column, row, channel.
MERGED_PATCHES = TensorConversion(
    lambda x: x.unflatten(-1, (-1, 2, 2)).transpose(-3, -1).flatten(-3),
    lambda x: (x.unflatten(-1, (2, 2, -1)).transpose(-3, -1).flatten(-3),),
)

# The authors' files have these names under `model`.
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
OFFICIAL_DENSE = Layout(  # one norm for each level, and UPerNet
    "official",
    (
        Rule("backbone.patch_embed.**", "backbone.patch_embed.**"),
        Rule("backbone.layers.*.blocks.*.attn.relative_position_index", None),
        Rule("backbone.layers.*.blocks.**", "backbone.layers.*.blocks.**"),
        *(Rule(f"backbone.layers.{i}.downsample.**", f"backbone.layers.{i}.downsample.**") for i in range(3)),
        Rule("backbone.norm*.*", "backbone.norms.*.*"),
        *upernet(),
    ),
    options={"small_maps": "shift"},
    head_options=upernet_options,
    required=("backbone.norm2.weight",),
    wrapper="state_dict",
)
# The patches are merged at the start of a stage (spine: at the end of the one before).
# If windows do not tile a map, timm shifts the map before padding it. At the image sizes of its files, windows tile all maps.
TIMM = Layout(
    "timm",
    (
        Rule("patch_embed.**", "backbone.patch_embed.**"),
        Rule("layers.*.blocks.**", "backbone.layers.*.blocks.**"),
        *(Rule(f"layers.{i + 1}.downsample.**", f"backbone.layers.{i}.downsample.**") for i in range(3)),
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


def hugging_face_encoder(prefix: str, bias_table: str, names: BlockNames) -> tuple[Rule, ...]:
    """Rules for the encoder at Hugging Face. `bias_table`: name of the relative position bias table of a block."""
    source, target = f"{prefix}encoder.layers.*.blocks.*", "backbone.layers.*.blocks.*"
    return (
        Rule(f"{prefix}embeddings.patch_embeddings.projection.*", "backbone.patch_embed.proj.*"),
        Rule(f"{prefix}embeddings.norm.*", "backbone.patch_embed.norm.*"),
        Rule(f"{source}.{bias_table.replace('bias_table', 'index')}", None),
        Rule(f"{source}.{bias_table}", f"{target}.attn.relative_position_bias_table"),
        *hugging_face_block(source, target, names),
        Rule(f"{prefix}encoder.layers.*.downsample.**", "backbone.layers.*.downsample.**"),
    )


def hugging_face(bias_table: str, names: BlockNames) -> Layout:
    """The layout of Hugging Face's classifiers."""
    rules = (Rule("swin.layernorm.*", "backbone.pooling.norm.*"), Rule("classifier.*", "head.linear.*"))
    return Layout("hf", (*hugging_face_encoder("swin.", bias_table, names), *rules))


def hugging_face_dense(prefix: str, bias_table: str, names: BlockNames) -> Layout:
    """The layout of Hugging Face's UperNetForSemanticSegmentation."""
    norms = (Rule(f"backbone.hidden_states_norms.stage{i + 1}.*", f"backbone.norms.{i}.*") for i in range(4))
    return Layout(
        "hf",
        (
            *hugging_face_encoder(prefix, bias_table, names),
            Rule("backbone.swin.layernorm.*", None),  # not used
            *norms,
            *upernet(HUGGING_FACE, classifier="classifier"),
        ),
        options={"small_maps": "shift"},
        head_options=upernet_options,
        required=("backbone.hidden_states_norms.stage1.weight",),
    )


IN_FILES = ("attention.self.relative_position_bias_table", names_in_files("attention.self"))
IN_MEMORY = ("attention.relative_position_bias.relative_position_bias_table", NAMES_IN_MEMORY)
HF_FILES, HF_MEMORY = hugging_face(*IN_FILES), hugging_face(*IN_MEMORY)
HF_DENSE_FILES, HF_DENSE_MEMORY = hugging_face_dense("backbone.", *IN_FILES), hugging_face_dense("backbone.swin.", *IN_MEMORY)
OPENMMLAB_ENCODER = (
    Rule("backbone.patch_embed.projection.*", "backbone.patch_embed.proj.*"),
    Rule("backbone.patch_embed.norm.*", "backbone.patch_embed.norm.*"),
    Rule("backbone.stages.*.blocks.*.attn.w_msa.relative_position_index", None),
    Rule("backbone.stages.*.blocks.*.attn.w_msa.**", "backbone.layers.*.blocks.*.attn.**"),
    Rule("backbone.stages.*.blocks.*.ffn.layers.0.0.*", "backbone.layers.*.blocks.*.mlp.fc1.*"),
    Rule("backbone.stages.*.blocks.*.ffn.layers.1.*", "backbone.layers.*.blocks.*.mlp.fc2.*"),
    Rule("backbone.stages.*.blocks.*.norm*.*", "backbone.layers.*.blocks.*.norm*.*"),
    Rule("backbone.stages.*.downsample.*.*", "backbone.layers.*.downsample.*.*", MERGED_PATCHES),
)
OPENMMLAB = Layout(
    "openmmlab",
    (
        *OPENMMLAB_ENCODER,
        Rule("backbone.norm3.*", "backbone.pooling.norm.*"),
        Rule("head.fc.*", "head.linear.*"),
    ),
    forbidden=("backbone.norm2.weight",),
    wrapper="state_dict",
)
OPENMMLAB_DENSE = Layout(
    "openmmlab",
    (*OPENMMLAB_ENCODER, Rule("backbone.norm*.*", "backbone.norms.*.*"), *upernet()),
    options={"small_maps": "shift"},
    head_options=upernet_options,
    required=("backbone.norm2.weight",),
    wrapper="state_dict",
)

LAYOUTS = with_input_settings(
    IMAGENET_BICUBIC,
    (
        OFFICIAL,
        OFFICIAL_DENSE,
        TIMM,
        TORCHVISION,
        HF_FILES,
        HF_MEMORY,
        HF_DENSE_FILES,
        HF_DENSE_MEMORY,
        OPENMMLAB,
        OPENMMLAB_DENSE,
    ),
)
