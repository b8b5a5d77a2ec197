"""VGG-16: torchvision's, as published and narrow; DeepLab-LargeFOV read once more from its layer list."""

from collections import OrderedDict

from recording import CLASSES, Case, renamed
from torch import nn

from spine.backbones.vgg16 import LAYOUT


def torchvision():
    from torchvision.models import vgg16

    return vgg16(num_classes=CLASSES, dropout=0.0)


def torchvision_narrow():
    """torchvision's network with the widths of our micro."""
    from torchvision.models.vgg import VGG, make_layers

    layers = make_layers([16, 16, "M", 32, 32, "M", 64, 64, 64, "M", 64, 64, 64, "M", 64, 64, 64, "M"])
    net = VGG(layers, num_classes=CLASSES, init_weights=False, dropout=0.0)
    net.classifier[0], net.classifier[3] = nn.Linear(64 * 7 * 7, 128), nn.Linear(128, 128)
    net.classifier[6] = nn.Linear(128, CLASSES)
    return net


def largefov():
    """Layer by layer as Caffe names them; biases everywhere, no dropout."""
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
    net["average"], net["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    net["score"] = nn.Linear(channels, CLASSES)
    return nn.Sequential(net)


CASES = [
    Case(
        "vgg16-torchvision",
        "torchvision vgg16",
        torchvision,
        "plain",
        renamed(LAYOUT),
        {"dropout": 0.0},
        sizes=((96, 128),),
        train_size=None,  # 138 million numbers would be drawn twice more
        slow=True,
    ),
    Case("vgg16-narrow", "torchvision VGG of our widths", torchvision_narrow, "micro", renamed(LAYOUT), {"dropout": 0.0}),
    Case(
        "vgg16-largefov",
        "the layer list of DeepLab-LargeFOV",
        largefov,
        "largefov",
        renamed([(r"^score\.", "head.linear.")], LAYOUT),
        {"dropout": 0.0},
        sizes=((97, 97), (64, 81)),
        train_size=(48, 64),
    ),
]
