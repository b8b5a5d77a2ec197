"""VGG-16 of torchvision, timm and mmpretrain, with few channels; ParseNet from its paper and the layer list of DeepLab."""

from collections import OrderedDict

import torch
from recording import CLASSES, Case
from torch import nn
from torch.nn import functional as F

from references import _openmmlab

NARROW = [16, 16, "M", 32, 32, "M", 64, 64, 64, "M", 64, 64, 64, "M", 64, 64, 64, "M"]  # widths of our micro


def torchvision():
    from torchvision.models import vgg16

    return vgg16(num_classes=CLASSES, dropout=0.0)


def torchvision_narrow():
    """The network with the widths of our micro."""
    from torchvision.models.vgg import VGG, make_layers

    net = VGG(make_layers(NARROW), num_classes=CLASSES, init_weights=False, dropout=0.0)
    net.classifier[0], net.classifier[3] = nn.Linear(64 * 7 * 7, 128), nn.Linear(128, 128)
    net.classifier[6] = nn.Linear(128, CLASSES)
    return net


def timm():
    from timm.layers import ClassifierHead
    from timm.models.vgg import VGG, ConvMlp

    net = VGG(NARROW, num_classes=CLASSES)
    net.pre_logits, net.head = ConvMlp(64, 128, 7, drop_rate=0.0), ClassifierHead(128, CLASSES)
    return net


def mmpretrain():
    net = _openmmlab.classifier({"type": "VGG", "depth": 16, "num_classes": CLASSES}, {"type": "ClsHead"})
    classifier = net.backbone.classifier
    convs = [module for module in net.backbone.features.modules() if isinstance(module, nn.Conv2d)]
    channels = 3
    for conv, width in zip(convs, [width for width in NARROW if width != "M"], strict=True):
        conv.__init__(channels, width, 3, padding=1)
        channels = width
    classifier[0], classifier[3], classifier[6] = nn.Linear(64 * 7 * 7, 128), nn.Linear(128, 128), nn.Linear(128, CLASSES)
    classifier[2].p = classifier[5].p = 0.0
    return net


class Normalize(nn.Module):
    """Caffe's layer: L2 norm over the channels of each position, with a scale per channel."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x):
        return x / torch.sqrt((x * x).sum(1, keepdim=True) + 1e-10) * self.weight.view(1, -1, 1, 1)


class ParseNet(nn.Sequential):
    """The layers with the names of Caffe, up to fc7, joined with the average of its map; both are normalized."""

    def __init__(self):
        net, channels = OrderedDict(), 3

        def conv(name, out, kernel=3, dilation=1):
            nonlocal channels
            net[name] = nn.Conv2d(channels, out, kernel, padding=dilation * (kernel // 2), dilation=dilation)
            net[name.replace("conv", "relu").replace("fc", "relu")] = nn.ReLU()
            channels = out

        for name in ("conv1_1", "conv1_2"):
            conv(name, 64)
        net["pool1"] = nn.MaxPool2d(3, stride=2, padding=1)
        for name in ("conv2_1", "conv2_2"):
            conv(name, 128)
        net["pool2"] = nn.MaxPool2d(3, stride=2, padding=1)
        for name in ("conv3_1", "conv3_2", "conv3_3"):
            conv(name, 256)
        net["pool3"] = nn.MaxPool2d(3, stride=2, padding=1)
        for name in ("conv4_1", "conv4_2", "conv4_3"):
            conv(name, 512)
        net["pool4"] = nn.MaxPool2d(3, stride=1, padding=1)
        for name in ("conv5_1", "conv5_2", "conv5_3"):
            conv(name, 512, dilation=2)
        net["pool5"] = nn.MaxPool2d(3, stride=1, padding=1)
        net["pool5a"] = nn.AvgPool2d(3, stride=1, padding=1)
        conv("fc6", 1024, dilation=12)
        conv("fc7", 1024, kernel=1)
        super().__init__(net)
        self.trunk = len(self)
        self.fc7_norm, self.pool6_1x1_norm = Normalize(1024), Normalize(1024)
        self.score = nn.Conv2d(2048, CLASSES, 1)

    def forward(self, image):
        fc7 = image
        for layer in list(self)[: self.trunk]:
            fc7 = layer(fc7)
        pool6 = F.interpolate(self.pool6_1x1_norm(F.adaptive_avg_pool2d(fc7, 1)), fc7.shape[2:])
        return self.score(torch.cat([self.fc7_norm(fc7), pool6], dim=1))


UNDROPPED = {"dropout": 0.0}
CASES = [
    Case(
        "vgg16-official",
        "ParseNet on DeepLab-LargeFOV, by its layers",
        ParseNet,
        "largefov",
        {"task": "seg", "head": "parsenet", **UNDROPPED},
        sizes=((97, 97), (64, 81)),
        train_size=(41, 81),
    ),
    Case("vgg16-torchvision", "torchvision VGG of our widths", torchvision_narrow, "micro", UNDROPPED),
    Case(
        "vgg16-torchvision-plain",
        "torchvision vgg16",
        torchvision,
        "plain",
        UNDROPPED,
        sizes=((96, 128),),
        train_size=None,  # it would draw 138 million random numbers two more times
        slow=True,
    ),
    Case("vgg16-timm", "timm VGG of our widths", timm, "micro", UNDROPPED, sizes=((224, 224), (160, 192), (256, 288))),
    Case(
        "vgg16-openmmlab",
        "mmpretrain VGG of our widths",
        mmpretrain,
        "micro",
        UNDROPPED,
        sizes=((224, 224),),
        train_size=(224, 224),
        theirs=lambda net, image: net.backbone(image)[-1],
    ),
]
