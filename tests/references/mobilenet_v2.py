"""MobileNetV2 of torchvision, timm, transformers (also with the names of TensorFlow's files), mmpretrain and d-li14."""

from functools import partial

from recording import CLASSES, Case, checkout
from torch import nn

from references import _openmmlab as openmmlab
from references import _segmentation, _tensorflow


def torchvision():
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(num_classes=CLASSES, width_mult=0.25, dropout=0.0)


def timm(name="035"):
    import timm

    return timm.create_model(f"mobilenetv2_{name}", num_classes=CLASSES)


def hugging_face():
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    config = MobileNetV2Config(depth_multiplier=0.35, classifier_dropout_prob=0.0, num_labels=CLASSES)
    return with_momentum(MobileNetV2ForImageClassification(config))


def with_momentum(net):
    """Sets the momentum of batch norms to PyTorch's default."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = (
                0.1  # theirs is TensorFlow's 0.997, the weight of the old statistics; PyTorch's is the weight of the new
            )
    return net


def hugging_face_segmenter(output_stride):
    from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation

    config = MobileNetV2Config(
        depth_multiplier=0.35, classifier_dropout_prob=0.0, num_labels=CLASSES, output_stride=output_stride
    )
    return with_momentum(MobileNetV2ForSemanticSegmentation(config))


def tensorflow():
    """The authors' network, with its names and order of axes."""
    return _tensorflow.Slim(hugging_face(), _tensorflow.mobilenet_v2)


def tensorflow_segmenter():
    """The network of the authors' DeepLab. It ends before the last convolution, which transformers computes and does not use."""
    net = hugging_face_segmenter(output_stride=16)
    net.mobilenet_v2.conv_1x1 = nn.Identity()
    return _tensorflow.Slim(net, _tensorflow.mobilenet_v2)


def mmseg():
    """DeepLabv3+ of mmsegmentation, with its width of the network and its dilations."""
    net = nn.Module()
    net.backbone = openmmlab.mmseg().backbones.MobileNetV2(
        0.5, strides=(1, 2, 2, 1, 1, 1, 1), dilations=(1, 1, 1, 2, 2, 4, 4), out_indices=(1, 2, 4, 6), norm_cfg={"type": "BN"}
    )
    options = {"channels": 64, "dilations": (1, 12, 24, 36), "c1_in_channels": 16, "c1_channels": 48}
    net.decode_head = _segmentation.head("DepthwiseSeparableASPPHead", 160, in_index=3, **options)
    net.auxiliary_head = _segmentation.head("FCNHead", 48, in_index=2, channels=32, num_convs=1, concat_input=False)
    return net


def mmseg_fcn():
    """FCN of mmsegmentation, with the convolution of the input and the output of the others in both heads."""
    net = nn.Module()
    net.backbone = openmmlab.mmseg().backbones.MobileNetV2(
        0.35, strides=(1, 2, 2, 1, 1, 1, 1), dilations=(1, 1, 1, 2, 2, 4, 4), out_indices=(1, 2, 4, 6), norm_cfg={"type": "BN"}
    )
    net.decode_head = _segmentation.head("FCNHead", 112, in_index=3, channels=32, num_convs=2, concat_input=True)
    net.auxiliary_head = _segmentation.head("FCNHead", 32, in_index=2, channels=24, num_convs=1, concat_input=True)
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
    *(
        Case(f"mobilenet_v2-timm-{name}", f"timm mobilenetv2_{name}", partial(timm, name), f"w{name}", sizes=SIZES, slow=True)
        for name in ("110d", "120d")
    ),
    Case(
        "mobilenet_v2-official",
        "transformers MobileNetV2ForImageClassification with the names of its TensorFlow files",
        tensorflow,
        "w035",
        sizes=((75, 101),),
    ),
    *(
        _segmentation.whole(
            f"mobilenet_v2-{publisher}-aspp",
            f"transformers MobileNetV2ForSemanticSegmentation{source}",
            build,
            "aspp",
            "w035",
            theirs=lambda net, image: net(image).logits,
            their_loss=lambda net, image: _segmentation.loss(net(image).logits),
            auxiliary=False,
            sizes=((129, 193),),
            train_size=(97, 129),
        )
        for publisher, source, build in (
            ("hf", "", partial(hugging_face_segmenter, output_stride=8)),
            ("official", " with the names of its TensorFlow files", tensorflow_segmenter),
        )
    ),
    _segmentation.whole(
        "mobilenet_v2-openmmlab-aspp",
        "mmsegmentation MobileNetV2, DepthwiseSeparableASPPHead and FCNHead",
        mmseg,
        "aspp",
        "w050",
    ),
    _segmentation.whole(
        "mobilenet_v2-openmmlab-fcn",
        "mmsegmentation MobileNetV2 and FCNHead",
        mmseg_fcn,
        "fcn",
        "w035",
        sizes=((48, 64),),
        train_size=(32, 48),
    ),
]
