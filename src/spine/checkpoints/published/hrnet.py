"""HRNet: weight files of the authors, timm and OpenMMLab.

The authors' files of the paper's classifiers and of their pose networks are on cloud drives only.
"""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights

RELEASES = "https://github.com/HRNet/HRNet-Image-Classification/releases/download/PretrainedWeights/HRNet_"
OPENMMLAB = "https://download.openmmlab.com/"
SEGMENTATION = "https://github.com/hsfzxjy/models.storage/releases/download/HRNet-OCR/hrnet_"


def official(file: str, top1: float) -> PublishedWeights:
    """A file of the authors' classification code."""
    return PublishedWeights(f"{RELEASES}{file}", "MIT", f"ImageNet-1k top-1 {top1}")


def timm(file: str, license: str, top1: str) -> PublishedWeights:
    """A file of timm: `ms` in its name means the authors' own weights, `gluon` means trained by GluonCV."""
    interpolation = "bicubic" if "gluon" in file else "bilinear"
    address = f"https://huggingface.co/timm/{file}/resolve/main/model.safetensors"
    return PublishedWeights(address, license, f"ImageNet-1k top-1 {top1}", interpolation=interpolation)


def converted(width: int, sha256: str, top1: float) -> PublishedWeights:
    """The authors' weights of the paper, converted and evaluated by OpenMMLab."""
    address = f"{OPENMMLAB}mmclassification/v0/hrnet/hrnet-w{width}_3rdparty_8xb32_in1k_20220120-{sha256}.pth"
    return PublishedWeights(address, "Apache-2.0", f"ImageNet-1k top-1 {top1}", sha256)


def pose(width: int, height: int, sha256: str, ap: float) -> PublishedWeights:
    """A pose network trained by OpenMMLab.

    `height`: of the images of persons, 256x192 or 384x288 pixels (height first). `ap`: with detected boxes.
    """
    image_size = (height, height * 3 // 4)
    size = f"{image_size[0]}x{image_size[1]}"
    address = f"{OPENMMLAB}mmpose/top_down/hrnet/hrnet_w{width}_coco_{size}-{sha256}_20200708.pth"
    return PublishedWeights(address, "Apache-2.0", f"COCO val2017 AP {ap} at {size}", sha256, image_size, None)


def segmentation(file: str, metric: str, image_size: tuple[int, int], aligned: bool = False) -> PublishedWeights:
    """A segmentation network of the authors (README of HRNet-Semantic-Segmentation). `aligned`: with aligned corners."""
    address, layout = f"{SEGMENTATION}{file}.pth", "official_aligned" if aligned else None
    return PublishedWeights(address, "MIT", metric, image_size=image_size, crop_pct=None, layout=layout)


CITYSCAPES, SQUARE, LIP = (1024, 2048), (520, 520), (473, 473)
WEIGHTS = {
    "w18_small_v1": {
        "imagenet1k": timm("hrnet_w18_small.ms_in1k", "MIT", "72.3"),
        "timm": timm("hrnet_w18_small.gluon_in1k", "Apache-2.0", "73.934 (timm)"),
    },
    "w18_small_v2": {
        "imagenet1k": timm("hrnet_w18_small_v2.ms_in1k", "MIT", "75.1"),
        "timm": timm("hrnet_w18_small_v2.gluon_in1k", "Apache-2.0", "78.202 (timm)"),
    },
    "w18": {
        "imagenet1k": official("W18_C_cosinelr_cutmix_300epoch.pth.tar", 77.9),
        "imagenet1k_ssld": official("W18_C_ssld_pretrained.pth", 81.2),
        "openmmlab": converted(18, "0c10b180", 76.75),
    },
    "w30": {"imagenet1k": converted(30, "8aa3832f", 78.19)},
    "w32": {
        "imagenet1k": converted(32, "c394f1ab", 78.44),
        "coco": pose(32, 256, "c78dce93", 0.746),
        "coco_384": pose(32, 384, "d9f0d786", 0.760),
    },
    "w40": {"imagenet1k": converted(40, "9a2dbfc5", 78.94)},
    "w44": {"imagenet1k": converted(44, "35d07f73", 78.88)},
    "w48": {
        "imagenet1k": official("W48_C_cosinelr_cutmix_300epoch.pth.tar", 81.1),
        "imagenet1k_ssld": official("W48_C_ssld_pretrained.pth", 83.6),
        "openmmlab": converted(48, "e555ef50", 79.32),
        "coco": pose(48, 256, "b9e0b3ab", 0.756),
        "coco_384": pose(48, 384, "314c8528", 0.767),
        "cityscapes": segmentation("cs_8090_torch11", "Cityscapes val mIoU 80.9", CITYSCAPES),
        "cityscapes_ocr": segmentation("ocr_cs_8162_torch11", "Cityscapes val mIoU 81.6 with OCR", CITYSCAPES),
        "pascal_context": segmentation(
            "pascal_ctx_5410_torch11", "PASCAL-Context mIoU 54.1, 59 classes, multi-scale, flipped", SQUARE
        ),
        "pascal_context_ocr": segmentation(
            "ocr_pascal_ctx_5618_torch11", "PASCAL-Context mIoU 56.2 with OCR, 59 classes, multi-scale, flipped", SQUARE
        ),
        "lip": segmentation("lip_5583_torch04", "LIP mIoU 55.83, flipped", LIP),
        "lip_ocr": segmentation("ocr_lip_5648_torch04", "LIP mIoU 56.48 with OCR, flipped", LIP),
        "cocostuff": segmentation("cocostuff_3617_torch04", "COCO-Stuff 10k mIoU 36.2", SQUARE, aligned=True),
        "cocostuff_ocr": segmentation("ocr_cocostuff_3965_torch04", "COCO-Stuff 10k mIoU 39.7 with OCR", SQUARE),
        "ade20k": segmentation("ade20k_4312_torch04", "ADE20K mIoU 43.1", SQUARE, aligned=True),
        "ade20k_ocr": segmentation("ocr_ade20k_4451_torch04", "ADE20K mIoU 44.5 with OCR", SQUARE),
    },
    "w64": {"imagenet1k": converted(64, "19126642", 79.46)},
}
