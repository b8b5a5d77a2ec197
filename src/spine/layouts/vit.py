"""ViT as timm, torchvision, Hugging Face and OpenMMLab publish it, and the list of published files."""

from __future__ import annotations

from spine.downloads import Published
from spine.inputs import IMAGENET
from spine.names import JOIN, Layout, Row

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
        input=IMAGENET,
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

# The authors' AugReg files at the addresses that timm reads them from: variant, model, data, augmentation and regularisation; and
# where they were fine-tuned on ImageNet-1k the learning rate, the image size and the top-1 that timm measured.
AUGREG = """
tiny_patch16 Ti_16 i21k none-wd_0.03-do_0.0-sd_0.0
tiny_patch16 Ti_16 i21k none-wd_0.03-do_0.0-sd_0.0 0.03 224 75.452
tiny_patch16 Ti_16 i21k none-wd_0.03-do_0.0-sd_0.0 0.03 384 78.438
small_patch32 S_32 i21k light1-wd_0.03-do_0.0-sd_0.0
small_patch32 S_32 i21k light1-wd_0.03-do_0.0-sd_0.0 0.03 224 76.010
small_patch32 S_32 i21k light1-wd_0.03-do_0.0-sd_0.0 0.03 384 80.476
small_patch16 S_16 i1k medium2-wd_0.1-do_0.0-sd_0.0 0.01 224 78.842
small_patch16 S_16 i1k medium2-wd_0.1-do_0.0-sd_0.0 0.01 384 81.130
small_patch16 S_16 i21k light1-wd_0.03-do_0.0-sd_0.0
small_patch16 S_16 i21k light1-wd_0.03-do_0.0-sd_0.0 0.03 224 81.402
small_patch16 S_16 i21k light1-wd_0.03-do_0.0-sd_0.0 0.03 384 83.814
base_patch32 B_32 i1k medium2-wd_0.1-do_0.1-sd_0.1 0.01 224 74.908
base_patch32 B_32 i1k medium2-wd_0.1-do_0.1-sd_0.1 0.01 384 78.750
base_patch32 B_32 i21k medium1-wd_0.03-do_0.0-sd_0.0
base_patch32 B_32 i21k medium1-wd_0.03-do_0.0-sd_0.0 0.03 224 80.732
base_patch32 B_32 i21k light1-wd_0.1-do_0.0-sd_0.0 0.03 384 83.358
base_patch16 B_16 i1k strong2-wd_0.1-do_0.1-sd_0.1 0.01 224 79.154
base_patch16 B_16 i1k strong2-wd_0.1-do_0.1-sd_0.1 0.01 384 81.102
base_patch16 B_16 i21k medium1-wd_0.1-do_0.0-sd_0.0
base_patch16 B_16 i21k medium1-wd_0.1-do_0.0-sd_0.0 0.01 224 84.534
base_patch16 B_16 i21k medium1-wd_0.1-do_0.0-sd_0.0 0.01 384 86.010
base_patch8 B_8 i21k medium1-wd_0.1-do_0.0-sd_0.0
base_patch8 B_8 i21k medium1-wd_0.1-do_0.0-sd_0.0 0.01 224 85.838
large_patch16 L_16 i21k medium1-wd_0.1-do_0.1-sd_0.1
large_patch16 L_16 i21k medium1-wd_0.1-do_0.1-sd_0.1 0.01 224 85.856
large_patch16 L_16 i21k medium1-wd_0.1-do_0.1-sd_0.1 0.01 384 87.096
tiny_r_s16_p8 R_Ti_16 i21k none-wd_0.03-do_0.0-sd_0.0
tiny_r_s16_p8 R_Ti_16 i21k none-wd_0.03-do_0.0-sd_0.0 0.03 224 71.800
tiny_r_s16_p8 R_Ti_16 i21k none-wd_0.03-do_0.0-sd_0.0 0.03 384 75.962
small_r26_s32 R26_S_32 i21k medium2-wd_0.03-do_0.0-sd_0.0
small_r26_s32 R26_S_32 i21k light0-wd_0.03-do_0.1-sd_0.1 0.03 224 81.856
small_r26_s32 R26_S_32 i21k medium2-wd_0.03-do_0.0-sd_0.0 0.03 384 84.066
large_r50_s32 R50_L_32 i21k medium2-wd_0.1-do_0.0-sd_0.0
large_r50_s32 R50_L_32 i21k medium1-wd_0.1-do_0.1-sd_0.1 0.01 224 84.434
large_r50_s32 R50_L_32 i21k medium2-wd_0.1-do_0.0-sd_0.0 0.01 384 86.188
"""
GOOGLE, HUB = "https://storage.googleapis.com/vit_models", "https://huggingface.co/timm/vit"
RELEASE = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx/jx_vit"
START = "a start for fine-tuning, 21843 classes"  # ImageNet-21k of Google's names is the ImageNet-22k of others
BARE = "a start for fine-tuning, from ImageNet-21k, without a classifier"


def google(address: str, top1: str = "", image_size: int = 224, sha256: str = "", metric: str = START) -> Published:
    """Of Google or trained as theirs: mean and std 0.5; timm measured without a crop from 384 px on."""
    metric = f"ImageNet-1k top-1 {top1} (timm)" if top1 else metric
    half, crop_pct = (0.5, 0.5, 0.5), 0.9 if image_size < 384 else 1.0
    return Published(address, "Apache-2.0", metric, sha256, image_size, crop_pct, half, half, interpolation="bicubic")


def torchvision_row(file: str, top1: float, image_size: int = 224, crop_pct: float = 0.875) -> Published:
    """`file` ends with its hash; those of SWAG, pre-trained on hashtags, have a licence of their own."""
    licence = "CC-BY-NC-4.0" if "swag" in file else "BSD-3-Clause"
    address = f"https://download.pytorch.org/models/vit_{file}.pth"
    interpolation = "bicubic" if "swag" in file else "bilinear"
    metric = f"ImageNet-1k top-1 {top1}"
    return Published(address, licence, metric, file[-8:], image_size, crop_pct, interpolation=interpolation)


def augreg() -> dict[str, dict[str, Published]]:
    """AUGREG as rows, ImageNet-1k alone first."""
    table: dict[str, dict[str, Published]] = {}
    for line in AUGREG.strip().splitlines():
        variant, model, data, recipe, *tuned = line.split()
        address = f"{GOOGLE}/augreg/{model}-{data}-300ep-lr_0.001-aug_{recipe}"
        rows = table.setdefault(variant, {})
        if not tuned:
            rows["imagenet22k"] = google(f"{address}.npz")
            continue
        rate, pixels, top1 = tuned
        name = ("imagenet1k" if data == "i1k" else "imagenet22k_1k") + ("_384" if pixels == "384" else "")
        rows[name] = google(f"{address}--imagenet2012-steps_20k-lr_{rate}-res_{pixels}.npz", top1, int(pixels))
    return table


OTHERS = {
    "base_patch32": {
        "imagenet1k_sam": google(f"{GOOGLE}/sam/ViT-B_32.npz", "73.704"),
        "torchvision": torchvision_row("b_32-d86f8d99", 75.912),
    },
    "base_patch16": {
        "imagenet1k_sam": google(f"{GOOGLE}/sam/ViT-B_16.npz", "80.246"),
        "torchvision": torchvision_row("b_16-c867db91", 81.072),
        "swag": torchvision_row("b_16_swag-9ac1b537", 85.304, 384, 1.0),
        "swag_linear": torchvision_row("b_16_lc_swag-4e70ced5", 81.886, 224, 1.0),
        "timm": google(f"{HUB}_base_patch16_224.augreg2_in21k_ft_in1k/resolve/main/model.safetensors", "85.108"),
    },
    "base_patch8": {
        "timm": google(f"{HUB}_base_patch8_224.augreg2_in21k_ft_in1k/resolve/main/model.safetensors", "86.252"),
    },
    "large_patch32": {
        "imagenet1k": torchvision_row("l_32-c7638314", 76.972),
        "imagenet22k": google(f"{HUB}_large_patch32_224.orig_in21k/resolve/main/model.safetensors", metric=BARE),
        "imagenet22k_1k_384": google(f"{RELEASE}_large_p32_384-9b920ba8.pth", "81.508", 384, "9b920ba8"),
    },
    "large_patch16": {
        "imagenet1k": torchvision_row("l_16-852ce7e3", 79.662, 224, 224 / 242),
        "swag": torchvision_row("l_16_swag-4f3808c9", 88.064, 512, 1.0),
        "swag_linear": torchvision_row("l_16_lc_swag-4d563306", 85.146, 224, 1.0),
    },
    "huge_patch14": {
        "imagenet22k": google(f"{HUB}_huge_patch14_224.orig_in21k/resolve/main/model.safetensors", metric=BARE),
        "swag": torchvision_row("h_14_swag-80465313", 88.552, 518, 1.0),
        "swag_linear": torchvision_row("h_14_lc_swag-c1eb923e", 85.708, 224, 1.0),
    },
    "base_r50_s16": {
        "imagenet22k": google(f"{HUB}_base_r50_s16_224.orig_in21k/resolve/main/model.safetensors", metric=BARE),
        "imagenet22k_1k_384": google(f"{RELEASE}_base_resnet50_384-9fd3c705.pth", "84.988", 384, "9fd3c705"),
    },
}
# base_r26_s32 was published in Google's bucket alone (imagenet21k/R26+ViT-B_32.npz), base_r50_s32 and large_r50_s16 nowhere.
PUBLISHED = {variant: {**augreg().get(variant, {}), **OTHERS.get(variant, {})} for variant in (*augreg(), *OTHERS)}
