"""SegNeXt: weight files of OpenMMLab. The authors' files are in a cloud folder of their university only."""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights, hash_in_name

OPENMMLAB = "https://download.openmmlab.com/mmsegmentation/v0.5/"


def variant(letter: str, encoder_file: str, segmenter_file: str, miou: float) -> dict[str, PublishedWeights]:
    """The authors' encoder, converted by OpenMMLab, and the segmentation network that OpenMMLab trained from it."""
    run = f"segnext_mscan-{letter}_1x16_512x512_adamw_160k_ade20k"
    return {
        "imagenet1k": hash_in_name(
            f"{OPENMMLAB}pretrain/segnext/mscan_{letter}_20230227-{encoder_file}.pth",
            "Apache-2.0",
            "backbone trained on ImageNet-1k",
            image_size=None,  # the evaluation as a classifier is not published
            crop_pct=None,
            interpolation=None,
        ),
        "ade20k": hash_in_name(
            f"{OPENMMLAB}segnext/{run}/{run}_{segmenter_file}.pth",
            "Apache-2.0",
            f"ADE20K mIoU {miou}",
            image_size=512,
            crop_pct=1.0,
        ),
    }


WEIGHTS = {
    "tiny": variant("t", "119e8c9f", "20230210_140244-05bd8466", 41.5),
    "small": variant("s", "f33ccdf2", "20230214_113014-43013668", 44.16),
    "base": variant("b", "3ab7d230", "20230209_172053-b6f6c70c", 48.03),
    "large": variant("l", "cef260d4", "20230209_172055-19b14b63", 50.99),
}
