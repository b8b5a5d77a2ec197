"""ViT: tensor names of the authors (npz files), timm, torchvision, Hugging Face and OpenMMLab."""

from __future__ import annotations

import torch
from torch import Tensor

from spine.backbones.vit import VARIANTS
from spine.checkpoints.formats._common import (
    CONV_KERNEL,
    NAMES_IN_MEMORY,
    OPENMMLAB_VIT,
    TIMM_VIT,
    BlockNames,
    hugging_face_block,
    hugging_face_embeddings,
    names_in_files,
)
from spine.checkpoints.input_settings import HALF, IMAGENET
from spine.checkpoints.mapping import Layout, Rule, TensorConversion

HYBRID = {"group_norm_eps": 1e-5, "std_conv_eps": 1e-8}  # of the ResNet of hybrids, at all publishers but the authors
NUM_HEADS = {hyperparameters["embed_dim"]: hyperparameters["num_heads"] for hyperparameters in VARIANTS.values()}


def split_heads(x: Tensor) -> Tensor:
    """(D, ...) -> (heads, D / heads, ...)."""
    return x.unflatten(0, (NUM_HEADS[len(x)], -1))


# Tensors of the authors' npz files, which have JAX's order of axes.
LINEAR_KERNEL = TensorConversion(lambda x: x.T, lambda x: (x.T,))  # (in, out)
VECTOR = TensorConversion(lambda x: x.flatten(), lambda x: (x,))  # (1, 1, 1, C) in older files
QKV_KERNEL = TensorConversion(  # each (in, heads, D / heads)
    lambda *parts: torch.cat([x.flatten(1).T for x in parts]),
    lambda x: tuple(part.T.unflatten(1, (NUM_HEADS[x.shape[1]], -1)) for part in x.chunk(3)),
)
QKV_BIAS = TensorConversion(  # each (heads, D / heads)
    lambda *parts: torch.cat([x.flatten() for x in parts]), lambda x: tuple(split_heads(part) for part in x.chunk(3))
)
OUT_KERNEL = TensorConversion(lambda x: x.flatten(0, 1).T, lambda x: (split_heads(x.T),))  # (heads, D / heads, out)


def npz_norm(source: str, target: str) -> tuple[Rule, Rule]:
    """Rules for a norm."""
    return Rule(f"{source}.scale", f"{target}.weight", VECTOR), Rule(f"{source}.bias", f"{target}.bias", VECTOR)


def npz_linear(source: str, target: str) -> tuple[Rule, Rule]:
    """Rules for a linear layer."""
    return Rule(f"{source}.kernel", f"{target}.weight", LINEAR_KERNEL), Rule(f"{source}.bias", f"{target}.bias")


def npz_attention(source: str, target: str) -> tuple[Rule, ...]:
    """Rules for a self-attention layer."""
    qkv = [f"{source}.{name}" for name in ("query", "key", "value")]
    return (
        Rule(tuple(f"{name}.kernel" for name in qkv), f"{target}.qkv.weight", QKV_KERNEL),
        Rule(tuple(f"{name}.bias" for name in qkv), f"{target}.qkv.bias", QKV_BIAS),
        Rule(f"{source}.out.kernel", f"{target}.proj.weight", OUT_KERNEL),
        Rule(f"{source}.out.bias", f"{target}.proj.bias"),
    )


def npz_stem(target: str) -> tuple[Rule, ...]:
    """Rules for the first layers of a hybrid."""
    return Rule("conv_root.kernel", f"{target}.conv.weight", CONV_KERNEL), *npz_norm("gn_root", f"{target}.norm")


def npz_bottleneck(source: str, target: str) -> tuple[Rule, ...]:
    """Rules for a residual block of a hybrid."""
    return (
        Rule(f"{source}.conv_proj.kernel", f"{target}.downsample.conv.weight", CONV_KERNEL),
        *npz_norm(f"{source}.gn_proj", f"{target}.downsample.norm"),
        Rule(f"{source}.conv*.kernel", f"{target}.conv*.weight", CONV_KERNEL),
        *npz_norm(f"{source}.gn*", f"{target}.norm*"),
    )


BLOCK = "Transformer.encoderblock_*"
# Names of the npz files, with "." for "/". Files of ImageNet-21k have one more layer, pre_logits, which fine-tuned files omit.
NPZ_RULES = (
    Rule("cls", "backbone.cls_token"),
    Rule("Transformer.posembed_input.pos_embedding", "backbone.pos_embed"),
    Rule("embedding.kernel", "backbone.patch_embed.proj.weight", CONV_KERNEL),
    Rule("embedding.bias", "backbone.patch_embed.proj.bias"),
    *npz_norm(f"{BLOCK}.LayerNorm_0", "backbone.blocks.*.norm1"),
    *npz_norm(f"{BLOCK}.LayerNorm_2", "backbone.blocks.*.norm2"),
    *npz_attention(f"{BLOCK}.MultiHeadDotProductAttention_1", "backbone.blocks.*.attn"),
    *npz_linear(f"{BLOCK}.MlpBlock_3.Dense_0", "backbone.blocks.*.mlp.fc1"),
    *npz_linear(f"{BLOCK}.MlpBlock_3.Dense_1", "backbone.blocks.*.mlp.fc2"),
    *npz_norm("Transformer.encoder_norm", "backbone.pooling.norm"),
    *npz_linear("head", "head.linear"),
    *npz_stem("backbone.patch_embed.backbone.stem"),
    *(
        rule
        for i in range(4)
        for j in range(9)
        for rule in npz_bottleneck(f"block{i + 1}.unit{j + 1}", f"backbone.patch_embed.backbone.stages.{i}.blocks.{j}")
    ),
)
OFFICIAL = Layout("official", NPZ_RULES, {"gelu": "tanh"}, input_settings=HALF)
STEM_ONLY = Layout(  # the hybrid R-Ti/16, without residual blocks
    "official",
    (*npz_stem("backbone.patch_embed.backbone"), *NPZ_RULES),
    {"gelu": "tanh"},
    required=("conv_root.kernel",),
    forbidden=("block1.unit1.conv1.kernel",),
    input_settings=HALF,
)
TIMM = Layout("timm", (*TIMM_VIT, Rule("norm.*", "backbone.pooling.norm.*"), Rule("head.*", "head.linear.*")), HYBRID)


def torchvision(fc1: str, fc2: str) -> Layout:
    """The layout of torchvision. `fc1`, `fc2`: names of the two layers of an MLP."""
    source, target = "encoder.layers.encoder_layer_*", "backbone.blocks.*"
    return Layout(
        "torchvision",
        (
            Rule("class_token", "backbone.cls_token"),
            Rule("encoder.pos_embedding", "backbone.pos_embed"),
            Rule("conv_proj.*", "backbone.patch_embed.proj.*"),
            Rule(f"{source}.ln_*.*", f"{target}.norm*.*"),
            Rule(f"{source}.self_attention.in_proj_*", f"{target}.attn.qkv.*"),
            Rule(f"{source}.self_attention.out_proj.*", f"{target}.attn.proj.*"),
            Rule(f"{source}.mlp.{fc1}.*", f"{target}.mlp.fc1.*"),
            Rule(f"{source}.mlp.{fc2}.*", f"{target}.mlp.fc2.*"),
            Rule("encoder.ln.*", "backbone.pooling.norm.*"),
            Rule("heads.head.*", "head.linear.*"),
        ),
        input_settings=IMAGENET,
    )


def hugging_face(prefix: str, layers: str, names: BlockNames) -> Layout:
    """The layout of Hugging Face. `prefix`: of all names but those of the blocks and the classifier. `layers`: the blocks."""
    source, target = f"{prefix}embeddings.patch_embeddings.backbone.bit", "backbone.patch_embed.backbone"
    return Layout(
        "hf",
        (
            *hugging_face_embeddings(prefix),
            Rule(f"{source}.embedder.convolution.*", f"{target}.stem.conv.*"),
            Rule(f"{source}.embedder.norm.*", f"{target}.stem.norm.*"),
            Rule(f"{source}.encoder.stages.*.layers.**", f"{target}.stages.*.blocks.**"),
            *hugging_face_block(f"{layers}.*", "backbone.blocks.*", names),
            Rule(f"{prefix}layernorm.*", "backbone.pooling.norm.*"),
            Rule("classifier.*", "head.linear.*"),
        ),
        {"norm_eps": 1e-12, **HYBRID},
    )


OPENMMLAB = Layout(
    "openmmlab",
    (*OPENMMLAB_VIT, Rule("backbone.ln1.*", "backbone.pooling.norm.*"), Rule("head.layers.head.*", "head.linear.*")),
    wrapper="state_dict",
)

LAYOUTS = (
    STEM_ONLY,
    OFFICIAL,
    TIMM,
    torchvision("0", "3"),
    torchvision("linear_1", "linear_2"),  # before version 0.13, when the published files were written
    hugging_face("vit.", "vit.encoder.layer", names_in_files()),
    hugging_face("vit.", "vit.layers", NAMES_IN_MEMORY),
    hugging_face("", "encoder.layer", names_in_files()),  # files without a classifier
    OPENMMLAB,
)
