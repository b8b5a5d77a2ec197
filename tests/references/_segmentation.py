"""Cases of whole segmentation networks, and the heads of mmsegmentation for the authors' backbones."""

import types

import torch
from recording import CLASSES, Case
from torch import nn
from torch.nn import functional as F

from references import _openmmlab
from spine.interfaces import TrainingOutputs

WEIGHT = 0.4  # of the loss of an auxiliary head


def pixels(logits, every=3):
    """One pixel of every 3x3: (B, classes, h, w) -> (B, N, classes)."""
    return logits[:, :, ::every, ::every].flatten(2).transpose(1, 2)


def loss(main, *auxiliary):
    """The loss of a network with auxiliary outputs."""
    total = 0.0
    for weight, logits in [(1.0, main), *((WEIGHT, extra) for extra in auxiliary)]:
        rows = pixels(logits).flatten(0, 1)
        total = total + weight * F.cross_entropy(rows, torch.arange(len(rows)) % CLASSES)
    return total


def our_loss(net, image):
    output, auxiliary = TrainingOutputs.of(net(image))
    assert all(weight == WEIGHT for _, weight in auxiliary)
    return loss(output, *(extra for extra, _ in auxiliary))


def maps_of(net, image):
    """The maps that the heads of a network of mmsegmentation read."""
    maps = net.backbone(image)
    return net.neck(maps) if hasattr(net, "neck") else maps


def their_loss(net, image):
    maps = maps_of(net, image)
    auxiliary = [net.auxiliary_head(maps)] if hasattr(net, "auxiliary_head") else []
    return loss(net.decode_head(maps), *auxiliary)


def whole(
    name,
    source,
    build,
    head,
    variant="micro",
    theirs=lambda net, image: net.decode_head(maps_of(net, image)),
    their_loss=their_loss,
    auxiliary=True,
    head_options=(("dropout", 0.0),),
    every=3,
    **more,
):
    """A case of a whole network. `theirs`: its logits at the stride of its head. `every`: distance of the recorded pixels."""
    options = {"task": "seg", "head": head, "head_options": dict(head_options), **more.pop("options", {})}
    if auxiliary:
        options["auxiliary_head"] = {"dropout": 0.0}
    return Case(
        name,
        source,
        build,
        variant,
        options=options,
        **{"sizes": ((64, 96),), "train_size": (64, 64), **more},
        theirs=lambda net, image: pixels(theirs(net, image), every),
        ours=lambda net, image: pixels(TrainingOutputs.of(net(image)).output, every),
        their_loss=their_loss,
        our_loss=our_loss,
    )


def head(kind, in_channels, **options):
    """A decode head of mmsegmentation for maps of these channels, without dropout."""
    network = getattr(_openmmlab.mmseg().decode_heads, kind)
    common = {"num_classes": CLASSES, "dropout_ratio": 0.0, "norm_cfg": {"type": "BN"}, "align_corners": False}
    return network(in_channels=in_channels, **{**common, **options})


def upernet(backbone, channels, width=64, auxiliary=True, neck=None):
    """UPerHead, and FCNHead as the auxiliary head, of mmsegmentation."""
    net = nn.Module()
    net.backbone = backbone
    if neck is not None:
        net.neck = neck
    net.decode_head = head("UPerHead", channels, in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6), channels=width)
    if auxiliary:
        net.auxiliary_head = head("FCNHead", channels[2], in_index=2, channels=32, num_convs=1, concat_input=False)
    return net


def silent_packages(names, **parts):
    """Replacements for packages of registries and loading that the authors' backbones import."""
    register = types.SimpleNamespace(register_module=lambda: lambda cls: cls)
    return _openmmlab.replaced_packages(names, BACKBONES=register, load_checkpoint=None, get_root_logger=None, **parts)


def hugging_face_upernet(backbone):
    """UperNetForSemanticSegmentation of transformers."""
    from transformers import UperNetConfig, UperNetForSemanticSegmentation

    config = UperNetConfig(
        backbone_config=backbone, num_labels=CLASSES, hidden_size=64, auxiliary_channels=32, auxiliary_in_channels=None
    )
    return UperNetForSemanticSegmentation(config)


def hugging_face_maps(net, image):
    net = getattr(net, "net", net)
    return net, net.backbone.forward_with_filtered_kwargs(image).feature_maps


def hugging_face_logits(net, image):
    net, maps = hugging_face_maps(net, image)
    return net.decode_head(maps)


def hugging_face_loss(net, image):
    net, maps = hugging_face_maps(net, image)
    return loss(net.decode_head(maps), net.auxiliary_head(maps))
