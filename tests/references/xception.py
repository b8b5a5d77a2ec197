"""Xception of Cadene and timm."""

from recording import CLASSES, Case, checkout


def cadene():
    return checkout("pretrained-models.pytorch", "pretrainedmodels/models/xception.py").xception(CLASSES, pretrained=None)


def timm():
    import timm

    return timm.create_model("legacy_xception", num_classes=CLASSES)


CASES = [
    Case(
        "xception-official",
        "Cadene/pretrained-models.pytorch xception",
        cadene,
        "standard",
        sizes=((149, 149),),
        train_size=(64, 96),
    ),
    Case("xception-timm", "timm legacy_xception", timm, "standard", sizes=((75, 101),), train_size=None),
]
