"""Swin of the authors, timm, torchvision, transformers and mmpretrain; for dense tasks of the authors and mmsegmentation."""

import torch
from recording import CLASSES, Case, checkout
from torch import nn

from references import _openmmlab, _segmentation
from references._transformers import Written
from spine.backbones.swin import VARIANTS

MICRO = VARIANTS["micro"]


def authors(size, **options):
    module = checkout("Swin-Transformer", "models/swin_transformer.py")
    return module.SwinTransformer(img_size=size, num_classes=CLASSES, drop_path_rate=0.0, **options)


def as_part(backbone):
    """A network with `backbone` as a submodule."""
    net = nn.Module()
    net.backbone = backbone
    return net


def authors_dense():
    """With replacements for the packages of registries and loading."""
    folder = "mmseg.models.backbones"
    names = ("mmcv_custom", "mmseg", "mmseg.utils", "mmseg.models", "mmseg.models.builder", folder)
    with _segmentation.silent_packages(names):
        file = f"{folder.replace('.', '/')}/swin_transformer.py"
        module = checkout("Swin-Transformer-Semantic-Segmentation", file, f"{folder}.swin_transformer")
    return as_part(module.SwinTransformer(drop_path_rate=0.0, **MICRO))


def timm():
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(128, num_classes=CLASSES, drop_path_rate=0.0, **MICRO)


def torchvision():
    from torchvision.models import SwinTransformer

    options = {**MICRO, "window_size": [4, 4], "patch_size": [4, 4]}
    return SwinTransformer(**options, stochastic_depth_prob=0.0, num_classes=CLASSES)


def hugging_face():
    from transformers import SwinConfig, SwinForImageClassification

    options = {key: list(value) if isinstance(value, tuple) else value for key, value in MICRO.items()}
    return SwinForImageClassification(SwinConfig(**options, num_labels=CLASSES, drop_path_rate=0.0, attn_implementation="sdpa"))


ARCH = {"embed_dims": 16, "depths": [2, 2, 4, 2], "num_heads": [1, 2, 4, 8]}


def mmpretrain():
    backbone = {"type": "SwinTransformer", "arch": ARCH, "window_size": 4, "drop_path_rate": 0.0}
    head = {"type": "LinearClsHead", "num_classes": CLASSES, "in_channels": 128}
    return _openmmlab.classifier(backbone, head, neck={"type": "GlobalAveragePooling"})


def mmseg():
    options = {key: value for key, value in MICRO.items() if key != "embed_dim"}
    network = _openmmlab.mmseg().backbones.SwinTransformer
    return as_part(network(embed_dims=MICRO["embed_dim"], **options, drop_path_rate=0.0))


CHANNELS = [16, 32, 64, 128]


def hugging_face_upernet():
    from transformers import SwinConfig

    options = {key: list(value) if isinstance(value, tuple) else value for key, value in MICRO.items()}
    stages = ["stage1", "stage2", "stage3", "stage4"]
    return _segmentation.hugging_face_upernet(SwinConfig(**options, drop_path_rate=0.0, out_features=stages))


def tokens(maps):
    """Ten channels of some pixels of all maps."""
    return torch.cat([x[:, :CLASSES, ::3, ::3].flatten(2).transpose(1, 2) for x in maps], 1)


def dense(name, source, build):
    return Case(
        f"swin-{name}",
        source,
        build,
        "micro",
        options={"task": "seg"},
        sizes=((56, 92), (150, 203)),  # the last map of the first is smaller than the window
        train_size=None,  # there is no common head
        theirs=lambda net, image: tokens(net.backbone(image)),
        ours=lambda net, image: tokens(net.backbone(image).maps),
    )


# the last map is larger than the window: a smaller one stops the shifts for all later images (transformers) or fails (mmpretrain)
LARGE = {"sizes": ((150, 203), (131, 400)), "train_size": (160, 139)}
OFFICIAL = "microsoft/Swin-Transformer, models/swin_transformer.py"
CASES = [
    Case(
        "swin-official",
        f"{OFFICIAL}, Swin-T",
        lambda: authors(224),
        "tiny",
        sizes=((224, 224),),  # the only size that it accepts
        train_size=None,  # recorded for the small network below
        slow=True,
    ),
    Case("swin-official-micro", OFFICIAL, lambda: authors(128, **MICRO), "micro", sizes=((128, 128),), train_size=(128, 128)),
    Case(
        "swin-official-small-maps",  # the last stage has a window of 2 and a table for it
        f"{OFFICIAL}, windows of 4 at 64 px",
        lambda: authors(64, **MICRO),
        "micro",
        sizes=((64, 64),),
        train_size=None,  # our table is larger
    ),
    dense("official-dense", "SwinTransformer/Swin-Transformer-Semantic-Segmentation swin_transformer.py", authors_dense),
    Case("swin-timm", "timm SwinTransformer", timm, "micro", sizes=((128, 128),), train_size=(128, 128)),
    Case(
        "swin-torchvision",
        "torchvision SwinTransformer",
        torchvision,
        "micro",
        sizes=((224, 224), (64, 160)),  # in the last map of the second, only one side is longer than the window
        train_size=(64, 160),
    ),
    Case("swin-hf", "transformers SwinForImageClassification, as in files", lambda: Written(hugging_face()), "micro", **LARGE),
    Case("swin-hf-memory", "transformers SwinForImageClassification, as in memory", hugging_face, "micro", **LARGE),
    Case("swin-openmmlab", "mmpretrain SwinTransformer", mmpretrain, "micro", **LARGE, theirs=_openmmlab.logits),
    dense("openmmlab-dense", "mmsegmentation SwinTransformer", mmseg),
    _segmentation.whole(
        "swin-official-upernet",
        "SwinTransformer/Swin-Transformer-Semantic-Segmentation swin_transformer.py, mmsegmentation UPerHead and FCNHead",
        lambda: _segmentation.upernet(authors_dense().backbone, CHANNELS),
        "upernet",
    ),
    _segmentation.whole(
        "swin-openmmlab-upernet",
        "mmsegmentation SwinTransformer and UPerHead, without an auxiliary head",
        lambda: _segmentation.upernet(mmseg().backbone, CHANNELS, auxiliary=False),
        "upernet",
        auxiliary=False,
    ),
    *(
        _segmentation.whole(
            f"swin-hf-upernet{suffix}",
            f"transformers UperNetForSemanticSegmentation, as in {place}",
            build,
            "upernet",
            theirs=_segmentation.hugging_face_logits,
            their_loss=_segmentation.hugging_face_loss,
        )
        for suffix, place, build in (
            ("", "files", lambda: Written(hugging_face_upernet())),
            ("-memory", "memory", hugging_face_upernet),
        )
    ),
]
