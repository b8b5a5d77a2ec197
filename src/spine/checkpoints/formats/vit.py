"""ViT as timm, torchvision, Hugging Face and OpenMMLab publish it, and the list of published files."""

from __future__ import annotations

import torch
from torch import Tensor

from spine.backbones.vit import VARIANTS
from spine.checkpoints.input_settings import HALF, IMAGENET
from spine.checkpoints.mapping import JOIN, Layout, Rule, TensorConversion

HYBRID = {"group_norm_eps": 1e-5, "std_conv_eps": 1e-8}  # of a ResNet in front, everywhere but in the authors' code


TIMM = Layout(
    "timm",
    (
        Rule("cls_token", "backbone.cls_token"),
        Rule("pos_embed", "backbone.pos_embed"),
        Rule("patch_embed.**", "backbone.patch_embed.**"),
        Rule("blocks.**", "backbone.blocks.**"),
        Rule("norm.*", "backbone.pooling.norm.*"),
        Rule("head.*", "head.linear.*"),
    ),
    HYBRID,
)


def torchvision(fc1: str, fc2: str) -> Layout:
    """With their names of the two layers of an MLP."""
    block = "encoder.layers.encoder_layer_*"
    return Layout(
        "torchvision",
        (
            Rule("class_token", "backbone.cls_token"),
            Rule("encoder.pos_embedding", "backbone.pos_embed"),
            Rule("conv_proj.*", "backbone.patch_embed.proj.*"),
            Rule(f"{block}.ln_*.*", "backbone.blocks.*.norm*.*"),
            Rule(f"{block}.self_attention.in_proj_*", "backbone.blocks.*.attn.qkv.*"),
            Rule(f"{block}.self_attention.out_proj.*", "backbone.blocks.*.attn.proj.*"),
            Rule(f"{block}.mlp.{fc1}.*", "backbone.blocks.*.mlp.fc1.*"),
            Rule(f"{block}.mlp.{fc2}.*", "backbone.blocks.*.mlp.fc2.*"),
            Rule("encoder.ln.*", "backbone.pooling.norm.*"),
            Rule("heads.head.*", "head.linear.*"),
        ),
        input=IMAGENET,
    )


def hugging_face(start: str, layer: str, qkv: str, out: str, fc1: str, fc2: str) -> Layout:
    """`start`: what stands before every name but those of the layers and the classifier; `qkv`: three names, parted by spaces."""
    patches = f"{start}embeddings.patch_embeddings"
    joined = tuple(f"{layer}.{part}.*" for part in qkv.split())
    return Layout(
        "hf",
        (
            Rule(f"{start}embeddings.cls_token", "backbone.cls_token"),
            Rule(f"{start}embeddings.position_embeddings", "backbone.pos_embed"),
            Rule(f"{patches}.projection.*", "backbone.patch_embed.proj.*"),
            Rule(f"{patches}.backbone.bit.embedder.convolution.*", "backbone.patch_embed.backbone.stem.conv.*"),
            Rule(f"{patches}.backbone.bit.embedder.norm.*", "backbone.patch_embed.backbone.stem.norm.*"),
            Rule(f"{patches}.backbone.bit.encoder.stages.*.layers.**", "backbone.patch_embed.backbone.stages.*.blocks.**"),
            Rule(f"{layer}.layernorm_before.*", "backbone.blocks.*.norm1.*"),
            Rule(f"{layer}.layernorm_after.*", "backbone.blocks.*.norm2.*"),
            Rule(joined, "backbone.blocks.*.attn.qkv.*", JOIN),
            Rule(f"{layer}.{out}.*", "backbone.blocks.*.attn.proj.*"),
            Rule(f"{layer}.{fc1}.*", "backbone.blocks.*.mlp.fc1.*"),
            Rule(f"{layer}.{fc2}.*", "backbone.blocks.*.mlp.fc2.*"),
            Rule(f"{start}layernorm.*", "backbone.pooling.norm.*"),
            Rule("classifier.*", "head.linear.*"),
        ),
        {"norm_eps": 1e-12, **HYBRID},
    )


# Their files keep the names of version 4, which version 5 renames when it reads and writes them; bare ones hold no classifier.
FILE = (
    "attention.attention.query attention.attention.key attention.attention.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


MEMORY = ("attention.q_proj attention.k_proj attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2")


OPENMMLAB = Layout(
    "openmmlab",
    (
        Rule("backbone.cls_token", "backbone.cls_token"),
        Rule("backbone.pos_embed", "backbone.pos_embed"),
        Rule("backbone.patch_embed.projection.*", "backbone.patch_embed.proj.*"),
        Rule("backbone.layers.*.ln*.*", "backbone.blocks.*.norm*.*"),
        Rule("backbone.layers.*.attn.**", "backbone.blocks.*.attn.**"),
        Rule("backbone.layers.*.ffn.layers.0.0.*", "backbone.blocks.*.mlp.fc1.*"),
        Rule("backbone.layers.*.ffn.layers.1.*", "backbone.blocks.*.mlp.fc2.*"),
        Rule("backbone.ln1.*", "backbone.pooling.norm.*"),
        Rule("head.layers.head.*", "head.linear.*"),
    ),
    wrapper="state_dict",
)


OTHER_PUBLISHERS = (
    TIMM,
    torchvision("0", "3"),
    torchvision("linear_1", "linear_2"),  # before version 0.13, when the files were made
    hugging_face("vit.", "vit.encoder.layer.*", *FILE),
    hugging_face("vit.", "vit.layers.*", *MEMORY),
    hugging_face("", "encoder.layer.*", *FILE),
    OPENMMLAB,
)


HEADS = {numbers["embed_dim"]: numbers["num_heads"] for numbers in VARIANTS.values()}


def by_heads(x: Tensor) -> Tensor:
    """(D, ...) -> (heads, D / heads, ...)."""
    return x.unflatten(0, (HEADS[len(x)], -1))


KERNEL = TensorConversion(lambda x: x.permute(3, 2, 0, 1), lambda x: (x.permute(2, 3, 1, 0),))  # of convolutions: (h, w, in, out)


DENSE = TensorConversion(lambda x: x.T, lambda x: (x.T,))


VECTOR = TensorConversion(lambda x: x.flatten(), lambda x: (x,))  # older files have (1, 1, 1, C)


QKV_KERNEL = TensorConversion(  # each (in, heads, out of a head)
    lambda *parts: torch.cat([x.flatten(1).T for x in parts]),
    lambda x: tuple(part.T.unflatten(1, (HEADS[x.shape[1]], -1)) for part in x.chunk(3)),
)


QKV_BIAS = TensorConversion(
    lambda *parts: torch.cat([x.flatten() for x in parts]), lambda x: tuple(by_heads(part) for part in x.chunk(3))
)


OUT_KERNEL = TensorConversion(lambda x: x.flatten(0, 1).T, lambda x: (by_heads(x.T),))


BLOCK, ATTENTION = "Transformer.encoderblock_*", "Transformer.encoderblock_*.MultiHeadDotProductAttention_1"


def norm_rows(theirs: str, ours: str) -> tuple[Rule, Rule]:
    """Scale and bias of a norm."""
    return Rule(f"{theirs}.scale", f"{ours}.weight", VECTOR), Rule(f"{theirs}.bias", f"{ours}.bias", VECTOR)


def stem_rows(ours: str) -> tuple[Rule, ...]:
    """A hybrid's first layers."""
    return Rule("conv_root.kernel", f"{ours}.conv.weight", KERNEL), *norm_rows("gn_root", f"{ours}.norm")


def unit_rows(theirs: str, ours: str) -> tuple[Rule, ...]:
    """A residual unit of a hybrid."""
    return (
        Rule(f"{theirs}.conv_proj.kernel", f"{ours}.downsample.conv.weight", KERNEL),
        *norm_rows(f"{theirs}.gn_proj", f"{ours}.downsample.norm"),
        Rule(f"{theirs}.conv*.kernel", f"{ours}.conv*.weight", KERNEL),
        *norm_rows(f"{theirs}.gn*", f"{ours}.norm*"),
    )


# The authors' npz files, their "/" read as ".". Those of ImageNet-21k hold one more layer, pre_logits, which fine-tuning leaves out.
ROWS = (
    Rule("cls", "backbone.cls_token"),
    Rule("Transformer.posembed_input.pos_embedding", "backbone.pos_embed"),
    Rule("embedding.kernel", "backbone.patch_embed.proj.weight", KERNEL),
    Rule("embedding.bias", "backbone.patch_embed.proj.bias"),
    *norm_rows(f"{BLOCK}.LayerNorm_0", "backbone.blocks.*.norm1"),
    *norm_rows(f"{BLOCK}.LayerNorm_2", "backbone.blocks.*.norm2"),
    Rule(tuple(f"{ATTENTION}.{x}.kernel" for x in ("query", "key", "value")), "backbone.blocks.*.attn.qkv.weight", QKV_KERNEL),
    Rule(tuple(f"{ATTENTION}.{x}.bias" for x in ("query", "key", "value")), "backbone.blocks.*.attn.qkv.bias", QKV_BIAS),
    Rule(f"{ATTENTION}.out.kernel", "backbone.blocks.*.attn.proj.weight", OUT_KERNEL),
    Rule(f"{ATTENTION}.out.bias", "backbone.blocks.*.attn.proj.bias"),
    Rule(f"{BLOCK}.MlpBlock_3.Dense_0.kernel", "backbone.blocks.*.mlp.fc1.weight", DENSE),
    Rule(f"{BLOCK}.MlpBlock_3.Dense_0.bias", "backbone.blocks.*.mlp.fc1.bias"),
    Rule(f"{BLOCK}.MlpBlock_3.Dense_1.kernel", "backbone.blocks.*.mlp.fc2.weight", DENSE),
    Rule(f"{BLOCK}.MlpBlock_3.Dense_1.bias", "backbone.blocks.*.mlp.fc2.bias"),
    *norm_rows("Transformer.encoder_norm", "backbone.pooling.norm"),
    Rule("head.kernel", "head.linear.weight", DENSE),
    Rule("head.bias", "head.linear.bias"),
    *stem_rows("backbone.patch_embed.backbone.stem"),
    *(
        row
        for i in range(4)
        for j in range(9)
        for row in unit_rows(f"block{i + 1}.unit{j + 1}", f"backbone.patch_embed.backbone.stages.{i}.blocks.{j}")
    ),
)


OFFICIAL = Layout("official", ROWS, {"gelu": "tanh"}, input=HALF)


STEM_ONLY = Layout(  # the hybrid R-Ti/16
    "official",
    (*stem_rows("backbone.patch_embed.backbone"), *ROWS),
    {"gelu": "tanh"},
    required=("conv_root.kernel",),
    forbidden=("block1.unit1.conv1.kernel",),
    input=HALF,
)


LAYOUTS = (STEM_ONLY, OFFICIAL, *OTHER_PUBLISHERS)
