"""MobileNetV3 of torchvision, timm (its own networks and those for TensorFlow's weights, also with TensorFlow's names), mmpretrain
and d-li14.
"""

from functools import partial

from recording import CLASSES, Case, checkout
from torch import nn

from references import _openmmlab as openmmlab
from references import _segmentation, _tensorflow


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


def tensorflow(name, depths):
    """The authors' network, with its names and order of axes."""
    return _tensorflow.Slim(timm(name), _tensorflow.mobilenet_v3(depths))


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


def mmseg():
    """LRASPPHead of mmsegmentation, with the epsilon of its configurations."""
    norm = {"type": "BN", "eps": 1e-3}
    ours = {**norm, "momentum": 0.01}  # our momentum in the backbone, which is TensorFlow's
    net = nn.Module()
    net.backbone = with_torch_gates(openmmlab.mmseg().backbones.MobileNetV3("small", out_indices=(0, 1, 12), norm_cfg=ours))
    net.decode_head = _segmentation.head(
        "LRASPPHead", (16, 16, 576), in_index=(0, 1, 2), channels=24, branch_channels=(8, 16), input_transform="multiple_select",
        norm_cfg=norm,
    )  # fmt: skip
    return net


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
LARGE, SMALL = (1, 2, 3, 4, 2, 3), (1, 2, 3, 2, 3)
TENSORFLOW = {"small_075": SMALL, "large_075": LARGE, "small_minimal_100": SMALL, "large_minimal_100": LARGE}
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
    *(
        Case(
            f"mobilenet_v3-official-{variant}",
            f"timm tf_mobilenetv3_{variant} with the names of its TensorFlow files",
            partial(tensorflow, f"tf_mobilenetv3_{variant}", depths),
            variant,
            sizes=((75, 101),),
        )
        for variant, depths in TENSORFLOW.items()
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
    _segmentation.whole(
        "mobilenet_v3-openmmlab-lraspp",
        "mmsegmentation MobileNetV3 small and LRASPPHead",
        mmseg,
        "lraspp",
        "small_100",
        auxiliary=False,
        head_options={},
        sizes=((400, 556),),  # two windows of the context
        every=12,
        train_size=(392, 392),
    ),
]
