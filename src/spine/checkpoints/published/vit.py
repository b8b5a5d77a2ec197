"""ViT: weight files of the authors, timm and torchvision.

base_r26_s32 was published in Google's bucket only (imagenet21k/R26+ViT-B_32.npz), base_r50_s32 and large_r50_s16 nowhere.
"""

from __future__ import annotations

from spine.checkpoints.input_settings import HALF_MEAN, HALF_STD
from spine.checkpoints.weight_table import PublishedWeights

GOOGLE = "https://storage.googleapis.com/vit_models"
HUB = "https://huggingface.co/timm/vit"
TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx/jx_vit"
FINE_TUNING = "weights for fine-tuning, 21843 classes"  # Google's ImageNet-21k is the ImageNet-22k of others
NO_CLASSIFIER = "weights for fine-tuning, from ImageNet-21k, without a classifier"

# The authors' AugReg files at the addresses that timm reads them from. Columns: variant, model, data, augmentation and
# regularization; for files that were fine-tuned on ImageNet-1k also the learning rate, the image size and timm's top-1.
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


def google(
    address: str,
    top1: str = "",
    image_size: int = 224,
    sha256: str = "",
    metric: str = FINE_TUNING,
) -> PublishedWeights:
    """A file of Google, or of a network trained like Google's: mean and std are 0.5.

    `top1`: measured by timm, from 384 pixels on without a crop.
    """
    return PublishedWeights(
        address,
        "Apache-2.0",
        f"ImageNet-1k top-1 {top1} (timm)" if top1 else metric,
        sha256,
        image_size=image_size,
        crop_pct=0.9 if image_size < 384 else 1.0,
        mean=HALF_MEAN,
        std=HALF_STD,
        interpolation="bicubic",
    )


def torchvision(file: str, top1: float, image_size: int = 224, crop_pct: float = 0.875) -> PublishedWeights:
    """A file of torchvision, whose name ends with its hash. The SWAG files, pre-trained on hashtags, have a different license."""
    swag = "swag" in file
    return PublishedWeights(
        f"https://download.pytorch.org/models/vit_{file}.pth",
        "CC-BY-NC-4.0" if swag else "BSD-3-Clause",
        f"ImageNet-1k top-1 {top1}",
        file[-8:],
        image_size=image_size,
        crop_pct=crop_pct,
        interpolation="bicubic" if swag else "bilinear",
    )


def augreg() -> dict[str, dict[str, PublishedWeights]]:
    """Returns the files in AUGREG by variant and name."""
    table: dict[str, dict[str, PublishedWeights]] = {}
    for line in AUGREG.strip().splitlines():
        variant, model, data, recipe, *fine_tuning = line.split()
        address = f"{GOOGLE}/augreg/{model}-{data}-300ep-lr_0.001-aug_{recipe}"
        rows = table.setdefault(variant, {})
        if not fine_tuning:
            rows["imagenet22k"] = google(f"{address}.npz")
            continue
        rate, pixels, top1 = fine_tuning
        name = ("imagenet1k" if data == "i1k" else "imagenet22k_1k") + ("_384" if pixels == "384" else "")
        rows[name] = google(f"{address}--imagenet2012-steps_20k-lr_{rate}-res_{pixels}.npz", top1, int(pixels))
    return table


OTHERS = {
    "base_patch32": {
        "imagenet1k_sam": google(f"{GOOGLE}/sam/ViT-B_32.npz", "73.704"),
        "torchvision": torchvision("b_32-d86f8d99", 75.912),
    },
    "base_patch16": {
        "imagenet1k_sam": google(f"{GOOGLE}/sam/ViT-B_16.npz", "80.246"),
        "torchvision": torchvision("b_16-c867db91", 81.072),
        "swag": torchvision("b_16_swag-9ac1b537", 85.304, 384, 1.0),
        "swag_linear": torchvision("b_16_lc_swag-4e70ced5", 81.886, 224, 1.0),
        "timm": google(f"{HUB}_base_patch16_224.augreg2_in21k_ft_in1k/resolve/main/model.safetensors", "85.108"),
    },
    "base_patch8": {
        "timm": google(f"{HUB}_base_patch8_224.augreg2_in21k_ft_in1k/resolve/main/model.safetensors", "86.252"),
    },
    "large_patch32": {
        "imagenet1k": torchvision("l_32-c7638314", 76.972),
        "imagenet22k": google(f"{HUB}_large_patch32_224.orig_in21k/resolve/main/model.safetensors", metric=NO_CLASSIFIER),
        "imagenet22k_1k_384": google(f"{TIMM}_large_p32_384-9b920ba8.pth", "81.508", 384, "9b920ba8"),
    },
    "large_patch16": {
        "imagenet1k": torchvision("l_16-852ce7e3", 79.662, 224, 224 / 242),
        "swag": torchvision("l_16_swag-4f3808c9", 88.064, 512, 1.0),
        "swag_linear": torchvision("l_16_lc_swag-4d563306", 85.146, 224, 1.0),
    },
    "huge_patch14": {
        "imagenet22k": google(f"{HUB}_huge_patch14_224.orig_in21k/resolve/main/model.safetensors", metric=NO_CLASSIFIER),
        "swag": torchvision("h_14_swag-80465313", 88.552, 518, 1.0),
        "swag_linear": torchvision("h_14_lc_swag-c1eb923e", 85.708, 224, 1.0),
    },
    "base_r50_s16": {
        "imagenet22k": google(f"{HUB}_base_r50_s16_224.orig_in21k/resolve/main/model.safetensors", metric=NO_CLASSIFIER),
        "imagenet22k_1k_384": google(f"{TIMM}_base_resnet50_384-9fd3c705.pth", "84.988", 384, "9fd3c705"),
    },
}


AUGREG_FILES = augreg()
WEIGHTS = {variant: {**AUGREG_FILES.get(variant, {}), **OTHERS.get(variant, {})} for variant in (*AUGREG_FILES, *OTHERS)}
