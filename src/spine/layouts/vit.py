"""ViT as timm, torchvision, Hugging Face and OpenMMLab publish it."""

from __future__ import annotations

from spine.weights import JOIN, Layout, Row

HYBRID = {"group_norm_eps": 1e-5, "std_conv_eps": 1e-8}  # of a ResNet in front, everywhere but in the authors' code

TIMM = Layout(
    "timm",
    (
        Row("cls_token", "backbone.cls_token"),
        Row("pos_embed", "backbone.pos_embed"),
        Row("patch_embed.**", "backbone.patch_embed.**"),
        Row("blocks.**", "backbone.blocks.**"),
        Row("norm.*", "backbone.pooling.norm.*"),
        Row("head.*", "head.linear.*"),
    ),
    HYBRID,
)


def torchvision(fc1: str, fc2: str) -> Layout:
    """With their names of the two layers of an MLP."""
    block = "encoder.layers.encoder_layer_*"
    return Layout(
        "torchvision",
        (
            Row("class_token", "backbone.cls_token"),
            Row("encoder.pos_embedding", "backbone.pos_embed"),
            Row("conv_proj.*", "backbone.patch_embed.proj.*"),
            Row(f"{block}.ln_*.*", "backbone.blocks.*.norm*.*"),
            Row(f"{block}.self_attention.in_proj_*", "backbone.blocks.*.attn.qkv.*"),
            Row(f"{block}.self_attention.out_proj.*", "backbone.blocks.*.attn.proj.*"),
            Row(f"{block}.mlp.{fc1}.*", "backbone.blocks.*.mlp.fc1.*"),
            Row(f"{block}.mlp.{fc2}.*", "backbone.blocks.*.mlp.fc2.*"),
            Row("encoder.ln.*", "backbone.pooling.norm.*"),
            Row("heads.head.*", "head.linear.*"),
        ),
    )


def hugging_face(start: str, layer: str, qkv: str, out: str, fc1: str, fc2: str) -> Layout:
    """`start`: what stands before every name but those of the layers and the classifier; `qkv`: three names, parted by spaces."""
    patches = f"{start}embeddings.patch_embeddings"
    joined = tuple(f"{layer}.{part}.*" for part in qkv.split())
    return Layout(
        "hf",
        (
            Row(f"{start}embeddings.cls_token", "backbone.cls_token"),
            Row(f"{start}embeddings.position_embeddings", "backbone.pos_embed"),
            Row(f"{patches}.projection.*", "backbone.patch_embed.proj.*"),
            Row(f"{patches}.backbone.bit.embedder.convolution.*", "backbone.patch_embed.backbone.stem.conv.*"),
            Row(f"{patches}.backbone.bit.embedder.norm.*", "backbone.patch_embed.backbone.stem.norm.*"),
            Row(f"{patches}.backbone.bit.encoder.stages.*.layers.**", "backbone.patch_embed.backbone.stages.*.blocks.**"),
            Row(f"{layer}.layernorm_before.*", "backbone.blocks.*.norm1.*"),
            Row(f"{layer}.layernorm_after.*", "backbone.blocks.*.norm2.*"),
            Row(joined, "backbone.blocks.*.attn.qkv.*", JOIN),
            Row(f"{layer}.{out}.*", "backbone.blocks.*.attn.proj.*"),
            Row(f"{layer}.{fc1}.*", "backbone.blocks.*.mlp.fc1.*"),
            Row(f"{layer}.{fc2}.*", "backbone.blocks.*.mlp.fc2.*"),
            Row(f"{start}layernorm.*", "backbone.pooling.norm.*"),
            Row("classifier.*", "head.linear.*"),
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
        Row("backbone.cls_token", "backbone.cls_token"),
        Row("backbone.pos_embed", "backbone.pos_embed"),
        Row("backbone.patch_embed.projection.*", "backbone.patch_embed.proj.*"),
        Row("backbone.layers.*.ln*.*", "backbone.blocks.*.norm*.*"),
        Row("backbone.layers.*.attn.**", "backbone.blocks.*.attn.**"),
        Row("backbone.layers.*.ffn.layers.0.0.*", "backbone.blocks.*.mlp.fc1.*"),
        Row("backbone.layers.*.ffn.layers.1.*", "backbone.blocks.*.mlp.fc2.*"),
        Row("backbone.ln1.*", "backbone.pooling.norm.*"),
        Row("head.layers.head.*", "head.linear.*"),
    ),
    wrapper="state_dict",
)

LAYOUTS = (
    TIMM,
    torchvision("0", "3"),
    torchvision("linear_1", "linear_2"),  # before version 0.13, when the files were made
    hugging_face("vit.", "vit.encoder.layer.*", *FILE),
    hugging_face("vit.", "vit.layers.*", *MEMORY),
    hugging_face("", "encoder.layer.*", *FILE),
    OPENMMLAB,
)
