"""ConvNeXt of the authors, timm, torchvision and transformers."""

from recording import CLASSES, Case, checkout

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


CASES = [
    Case("convnext-official", "facebookresearch/ConvNeXt models/convnext.py", authors, "micro"),
    Case("convnext-timm", "timm convnext_tiny", timm, "tiny"),
    Case("convnext-torchvision", "torchvision ConvNeXt", torchvision, "micro"),
    Case("convnext-hf", "transformers ConvNextForImageClassification", hugging_face, "micro"),
]
