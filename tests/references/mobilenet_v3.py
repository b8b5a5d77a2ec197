"""MobileNetV3 of torchvision, timm (its own networks and those for TensorFlow's weights), mmpretrain and d-li14."""

from functools import partial

from recording import CLASSES, Case, checkout
from torch import nn

from references import _openmmlab as openmmlab
from references import _segmentation


def torchvision(size):
    """Its other widths differ from TensorFlow's: they scale the expanded channels and the hidden layer."""
    from torchvision import models

    return getattr(models, f"mobilenet_v3_{size}")(num_classes=CLASSES, dropout=0.0)


def torchvision_segmenter():
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)


def torchvision_logits(net, image):
    return net.classifier(net.backbone(image))


def timm(name):
    """With our batch norm momentum, which is TensorFlow's."""
    import timm

    return timm.create_model(name, num_classes=CLASSES, bn_momentum=0.01)


def with_torch_gates(net):
    """Replaces their hard sigmoids: torch's gradient has the factor 1/6 in float32 for all dtypes, that of their code does not."""
    for module in net.modules():
        for name, child in module.named_children():
            if type(child).__name__ in ("HSigmoid", "h_sigmoid") and type(module).__name__ != "h_swish":
                setattr(module, name, nn.Hardsigmoid())
    return net


def mmpretrain(arch, channels, hidden):
    head = {"type": "StackedLinearClsHead", "num_classes": CLASSES, "in_channels": channels, "mid_channels": [hidden]}
    head["act_cfg"] = {"type": "HSwish"}
    return with_torch_gates(openmmlab.classifier({"type": "MobileNetV3", "arch": arch}, head, {"type": "GlobalAveragePooling"}))


def d_li14(size):
    net = getattr(checkout("mobilenetv3.pytorch", "mobilenetv3.py"), f"mobilenetv3_{size}")(num_classes=CLASSES, width_mult=0.75)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.01
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    return with_torch_gates(net)


SIZES = ((128, 128), (75, 101))
TIMM = {
    "timm-rw": "rw",
    "timm-small": "small_050",
    "timm-large": "large_075",
    "timm_tf-small": "small_075",
    "timm_tf-large": "large_075",
}
MINIMAL = {
    "timm_tf-small_minimal": "small_minimal_100",
    "timm_tf-large_minimal": "large_minimal_100",
}  # these files determine their layout
MMPRETRAIN = {"small": ("small_050", 288, 1024), "large": ("large", 960, 1280)}

CASES = [
    *(
        Case(
            f"mobilenet_v3-torchvision-{size}",
            f"torchvision mobilenet_v3_{size}",
            partial(torchvision, size),
            f"{size}_100",
            sizes=SIZES,
        )
        for size in ("small", "large")
    ),
    *(
        Case(
            f"mobilenet_v3-{name}",
            f"timm {'tf_' * ('tf' in name)}mobilenetv3_{variant}",
            partial(timm, f"{'tf_' * ('tf' in name)}mobilenetv3_{variant}"),
            {"rw": "large_rw"}.get(variant, variant),
            layout="timm_tf" if "tf" in name and name not in MINIMAL else None,
            sizes=SIZES,
        )
        for name, variant in (TIMM | MINIMAL).items()
    ),
    *(
        Case(
            f"mobilenet_v3-openmmlab-{size}",
            f"mmpretrain MobileNetV3 {arch}",
            partial(mmpretrain, arch, *numbers),
            {"large": "large_100"}.get(arch, arch),
            sizes=SIZES,
            theirs=openmmlab.logits,
        )
        for size, (arch, *numbers) in MMPRETRAIN.items()
    ),
    *(
        Case(
            f"mobilenet_v3-d_li14-{size}",
            f"d-li14/mobilenetv3.pytorch {size} 0.75",
            partial(d_li14, size),
            f"{size}_075",
            sizes=SIZES,
        )
        for size in ("small", "large")
    ),
    _segmentation.whole(
        "mobilenet_v3-torchvision-lraspp",
        "torchvision lraspp_mobilenet_v3_large",
        torchvision_segmenter,
        "lraspp",
        "large_100",
        theirs=torchvision_logits,
        their_loss=lambda net, image: _segmentation.loss(torchvision_logits(net, image)),
        auxiliary=False,
        head_options={},
        sizes=((129, 193),),
        train_size=(97, 129),
    ),
]
