"""MobileNetV2: torchvision's."""

from recording import CLASSES, Case, renamed

from spine.backbones.mobilenet_v2 import LAYOUT


def torchvision():
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(num_classes=CLASSES, dropout=0.0)


SIZES = ((224, 224), (75, 101))
CASES = [
    Case("mobilenet_v2-torchvision", "torchvision mobilenet_v2", torchvision, "w100", renamed(LAYOUT), sizes=SIZES),
]
