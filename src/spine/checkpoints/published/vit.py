"""PublishedWeights weight files of vit."""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights

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


def google(address: str, top1: str = "", image_size: int = 224, sha256: str = "", metric: str = START) -> PublishedWeights:
    """Of Google or trained as theirs: mean and std 0.5; timm measured without a crop from 384 px on."""
    metric = f"ImageNet-1k top-1 {top1} (timm)" if top1 else metric
    half, crop_pct = (0.5, 0.5, 0.5), 0.9 if image_size < 384 else 1.0
    return PublishedWeights(address, "Apache-2.0", metric, sha256, image_size, crop_pct, half, half, interpolation="bicubic")


def torchvision_row(file: str, top1: float, image_size: int = 224, crop_pct: float = 0.875) -> PublishedWeights:
    """`file` ends with its hash; those of SWAG, pre-trained on hashtags, have a license of their own."""
    license = "CC-BY-NC-4.0" if "swag" in file else "BSD-3-Clause"
    address = f"https://download.pytorch.org/models/vit_{file}.pth"
    interpolation = "bicubic" if "swag" in file else "bilinear"
    metric = f"ImageNet-1k top-1 {top1}"
    return PublishedWeights(address, license, metric, file[-8:], image_size, crop_pct, interpolation=interpolation)


def augreg() -> dict[str, dict[str, PublishedWeights]]:
    """AUGREG as rows, ImageNet-1k alone first."""
    table: dict[str, dict[str, PublishedWeights]] = {}
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
WEIGHTS = {variant: {**augreg().get(variant, {}), **OTHERS.get(variant, {})} for variant in (*augreg(), *OTHERS)}
