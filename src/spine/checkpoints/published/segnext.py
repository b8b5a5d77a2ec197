"""PublishedWeights weight files of segnext."""

from __future__ import annotations

from spine.checkpoints.weight_table import PublishedWeights, hashed

MMLAB = "https://download.openmmlab.com/mmsegmentation/v0.5/"


def published_row(letter: str, encoder_file: str, segmenter_file: str, miou: float) -> dict[str, PublishedWeights]:
    """The authors' encoder as OpenMMLab has converted it, and the segmenter that OpenMMLab trained from it."""
    encoder_address = f"{MMLAB}pretrain/segnext/mscan_{letter}_20230227-{encoder_file}.pth"
    run = f"segnext_mscan-{letter}_1x16_512x512_adamw_160k_ade20k"
    return {
        "imagenet1k": hashed(
            encoder_address,
            "Apache-2.0",
            "a start for segmenters, trained on ImageNet-1k",
            image_size=None,  # how it was evaluated as a classifier is not published
            crop_pct=None,
            interpolation=None,
        ),
        "ade20k": hashed(
            f"{MMLAB}segnext/{run}/{run}_{segmenter_file}.pth",
            "Apache-2.0",
            f"ADE20K mIoU {miou}",
            image_size=512,
            crop_pct=1.0,
        ),
    }


# The authors' files lie in a cloud folder of their university alone.
WEIGHTS: dict[str, dict[str, PublishedWeights]] = {
    "tiny": published_row("t", "119e8c9f", "20230210_140244-05bd8466", 41.5),
    "small": published_row("s", "f33ccdf2", "20230214_113014-43013668", 44.16),
    "base": published_row("b", "3ab7d230", "20230209_172053-b6f6c70c", 48.03),
    "large": published_row("l", "cef260d4", "20230209_172055-19b14b63", 50.99),
}
