"""MobileNetV2 of torchvision, timm, transformers, mmpretrain and d-li14."""

from recording import CLASSES, Case, checkout
from torch import nn

from references import _openmmlab as openmmlab


def torchvision():
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(num_classes=CLASSES, width_mult=0.25, dropout=0.0)


def timm():
    import timm

    return timm.create_model("mobilenetv2_035", num_classes=CLASSES)


def hugging_face():
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    config = MobileNetV2Config(depth_multiplier=0.35, classifier_dropout_prob=0.0, num_labels=CLASSES)
    net = MobileNetV2ForImageClassification(config)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = (
                0.1  # theirs is TensorFlow's 0.997, the weight of the old statistics; PyTorch's is the weight of the new
            )
    return net


def mmpretrain():
    head = {"type": "LinearClsHead", "num_classes": CLASSES, "in_channels": 1280}
    return openmmlab.classifier({"type": "MobileNetV2", "widen_factor": 0.5}, head, {"type": "GlobalAveragePooling"})


def d_li14():
    return checkout("mobilenetv2.pytorch", "models/imagenet/mobilenetv2.py").MobileNetV2(num_classes=CLASSES, width_mult=0.25)


SIZES = ((224, 224), (75, 101))
CASES = [
    Case("mobilenet_v2-torchvision", "torchvision MobileNetV2", torchvision, "micro", sizes=SIZES),
    Case("mobilenet_v2-timm", "timm mobilenetv2_035", timm, "w035", sizes=SIZES),
    Case("mobilenet_v2-hf", "transformers MobileNetV2ForImageClassification", hugging_face, "w035", sizes=SIZES),
    Case("mobilenet_v2-openmmlab", "mmpretrain MobileNetV2", mmpretrain, "w050", sizes=SIZES, theirs=openmmlab.logits),
    Case("mobilenet_v2-d_li14", "d-li14/mobilenetv2.pytorch", d_li14, "micro", sizes=SIZES),
]
