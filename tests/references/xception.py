"""Xception: Cadene's port, and timm's."""

from recording import CLASSES, Case, checkout, renamed

from spine.backbones.xception import LAYOUT


def cadene():
    return checkout("pretrained-models.pytorch", "pretrainedmodels/models/xception.py").xception(CLASSES, pretrained=None)


def timm():
    import timm

    return timm.create_model("legacy_xception", num_classes=CLASSES)


CASES = [
    Case(
        "xception-cadene",
        "Cadene/pretrained-models.pytorch xception",
        cadene,
        "standard",
        renamed(LAYOUT),
        sizes=((149, 149), (96, 128)),
    ),
    Case(
        "xception-timm",
        "timm legacy_xception",
        timm,
        "standard",
        renamed(LAYOUT),
        sizes=((75, 101),),
        train_size=None,
    ),
]
