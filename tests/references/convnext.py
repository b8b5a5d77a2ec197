"""ConvNeXt of the authors, timm, torchvision and transformers."""

from recording import CLASSES, Case, checkout

from references import _openmmlab, _segmentation

SMALL = {"depths": [2, 2, 4, 2], "dims": [24, 48, 96, 160]}


def authors():
    return checkout("ConvNeXt", "models/convnext.py").ConvNeXt(num_classes=CLASSES, **SMALL)


def timm():
    import timm

    return timm.create_model("convnext_tiny", num_classes=CLASSES)


def torchvision():
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    dims = [*SMALL["dims"], None]
    setting = [CNBlockConfig(dims[i], dims[i + 1], depth) for i, depth in enumerate(SMALL["depths"])]
    return ConvNeXt(setting, num_classes=CLASSES)


def hugging_face():
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(depths=SMALL["depths"], hidden_sizes=SMALL["dims"], num_labels=CLASSES)
    return ConvNextForImageClassification(config)


def authors_dense():
    """With replacements for the packages of registries and loading."""
    names = ("mmcv_custom", "mmseg", "mmseg.utils", "mmseg.models", "mmseg.models.builder")
    with _segmentation.silent_packages(names):
        module = checkout("ConvNeXt", "semantic_segmentation/backbone/convnext.py", "convnext_dense")
    return module.ConvNeXt(**SMALL, layer_scale_init_value=1.0)


def mmpretrain_dense():
    arch = {"depths": SMALL["depths"], "channels": SMALL["dims"]}
    return _openmmlab.models().ConvNeXt(arch, out_indices=[0, 1, 2, 3], gap_before_final_norm=False)


def hugging_face_upernet():
    from transformers import ConvNextConfig

    stages = ["stage1", "stage2", "stage3", "stage4"]
    config = ConvNextConfig(depths=SMALL["depths"], hidden_sizes=SMALL["dims"], out_features=stages)
    return _segmentation.hugging_face_upernet(config)


CASES = [
    Case("convnext-official", "facebookresearch/ConvNeXt models/convnext.py", authors, "micro"),
    Case("convnext-timm", "timm convnext_tiny", timm, "tiny"),
    Case("convnext-torchvision", "torchvision ConvNeXt", torchvision, "micro"),
    Case("convnext-hf", "transformers ConvNextForImageClassification", hugging_face, "micro"),
    _segmentation.whole(
        "convnext-official-upernet",
        "facebookresearch/ConvNeXt semantic_segmentation, mmsegmentation UPerHead and FCNHead",
        lambda: _segmentation.upernet(authors_dense(), SMALL["dims"]),
        "upernet",
    ),
    _segmentation.whole(
        "convnext-openmmlab-upernet",
        "mmpretrain ConvNeXt, mmsegmentation UPerHead and FCNHead",
        lambda: _segmentation.upernet(mmpretrain_dense(), SMALL["dims"]),
        "upernet",
    ),
    _segmentation.whole(
        "convnext-hf-upernet",
        "transformers UperNetForSemanticSegmentation",
        hugging_face_upernet,
        "upernet",
        theirs=_segmentation.hugging_face_logits,
        their_loss=_segmentation.hugging_face_loss,
    ),
]
