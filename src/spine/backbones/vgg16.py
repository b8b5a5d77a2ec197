"""VGG-16 (Simonyan & Zisserman, arXiv 1409.1556), and its dense form DeepLab-LargeFOV (Chen et al., arXiv 1412.7062).

Thirteen 3x3 convolutions without norms, in five groups with max pooling between them. `plain` is
torchvision's network: adaptive average pooling to 7x7 before the two hidden layers allows any image
size.

`largefov` is the backbone of ParseNet (Liu et al., arXiv 1506.04579): two pools have stride 1,
dilation compensates for it, and the hidden layers are convolutions. Its pools round sizes down,
Caffe's round up. Both are equal at the authors' sizes of 8 k + 1 pixels, and no map is larger than
ceil(H / stride).
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.conv import GlobalAveragePool
from spine.layers.initialization import kaiming_fan_out, zero_bias
from spine.variants import Hyperparameters, variant_builder

DEPTHS = (2, 2, 3, 3, 3)  # paper table 1, column D


class HiddenLayers(nn.Module):
    """Average pooling to 7x7, then two linear layers with ReLU and dropout."""

    def __init__(self, channels: int, hidden: int, dropout: float, as_convs: bool = False):
        """`as_convs`: on maps larger than 7x7, averages the output of the layers, applied as convolutions.

        timm does so; otherwise the map is averaged.
        """
        super().__init__()
        self.as_convs = as_convs
        self.fc6 = nn.Linear(channels * 7 * 7, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.drop = nn.Dropout(dropout)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Features) -> Tensor:
        """Features -> (B, D)."""
        x = features.maps[-1]
        if not self.as_convs:
            x = self.drop(self.relu(self.fc6(F.adaptive_avg_pool2d(x, 7).flatten(1))))
            return self.drop(self.relu(self.fc7(x)))
        x = F.adaptive_avg_pool2d(x, (max(x.shape[2], 7), max(x.shape[3], 7)))
        x = self.drop(self.relu(F.conv2d(x, self.fc6.weight.unflatten(1, (-1, 7, 7)), self.fc6.bias)))
        x = self.relu(F.conv2d(x, self.fc7.weight[..., None, None], self.fc7.bias))
        return self.drop(x.mean((2, 3)))


def convolutions(widths: tuple[int, ...], pools: list[nn.Module], dilations: tuple[int, ...], in_chans: int) -> nn.ModuleList:
    """Groups of 3x3 convolutions with ReLU, each followed by its pool.

    The list is numbered as torchvision's `features`.
    """
    layers = nn.ModuleList()
    for depth, width, pool, dilation in zip(DEPTHS, widths, pools, dilations, strict=True):
        for _ in range(depth):
            layers.extend([nn.Conv2d(in_chans, width, 3, padding=dilation, dilation=dilation), nn.ReLU(inplace=True)])
            in_chans = width
        layers.append(pool)
    return layers


class VGG16(Backbone):
    """The classifier.

    Levels are the maps after pools 2 to 5, with strides 4, 8, 16, 32 (FCN reads pool3, pool4 and
    pool5).
    """

    LAST_LAYERS = (9, 16, 23, 30)

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 128, 256, 512, 512),
        hidden: int = 4096,
        hidden_std: float | None = 0.01,
        *,
        dropout: float = 0.5,
        hidden_as_convs: bool = False,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        in_chans: int = 3,
    ):
        """`hidden_std`: standard deviation of the initial hidden layers; None for Kaiming's.

        0.01 is for thousands of units, and too small for few.
        """
        super().__init__()
        check_use(use)
        self.levels = (3,) if use == "pooled" else pick_levels(levels, 4)
        self.last_layers = [self.LAST_LAYERS[i] for i in self.levels]
        pools: list[nn.Module] = [nn.MaxPool2d(2, 2) for _ in DEPTHS]
        self.features = convolutions(widths, pools, (1, 1, 1, 1, 1), in_chans)[: self.last_layers[-1] + 1]
        self.pooling = HiddenLayers(widths[-1], hidden, dropout, hidden_as_convs) if use == "pooled" else nn.Identity()
        self.spec = FeatureSpec(
            tuple(Level(widths[1 + i], 4 * 2**i) for i in self.levels),
            embed_dim=hidden if use == "pooled" else widths[1 + self.levels[-1]],
        )
        self.apply(kaiming_fan_out)  # torchvision
        self.apply(zero_bias)
        for layer in self.pooling.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=hidden_std or (2.0 / layer.in_features) ** 0.5)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the chosen levels."""
        x, maps = image, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.last_layers:
                maps.append(x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Each convolution; each hidden layer."""
        convs = [(f"features.{i}.",) for i, layer in enumerate(self.features) if isinstance(layer, nn.Conv2d)]
        return [*convs, ("pooling.fc6.",), ("pooling.fc7.",)]


class LargeFOV(Backbone):
    """The dense form.

    Levels are conv3_3 (stride 4), conv4_3, conv5_3 and fc7 (stride 8), each after its ReLU, fc7
    after dropout.
    """

    LAST_LAYERS = (15, 22, 29)

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 128, 256, 512, 512),
        hidden: int = 1024,
        *,
        dropout: float = 0.5,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        in_chans: int = 3,
    ):
        super().__init__()
        check_use(use)
        self.levels = (3,) if use == "pooled" else pick_levels(levels, 4)
        self.last_layers = [self.LAST_LAYERS[i] for i in self.levels if i < 3]
        # an average pool follows pool5 (`pool5a`), which papers on LargeFOV rarely mention
        pools: list[nn.Module] = [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 1, 1)]
        pools.append(nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1)))
        features = convolutions(widths, pools, (1, 1, 1, 1, 2), in_chans)
        self.dense = self.levels[-1] == 3
        self.features = features if self.dense else features[: self.last_layers[-1] + 1]
        if self.dense:
            self.fc6 = nn.Conv2d(widths[-1], hidden, 3, padding=12, dilation=12)
            self.fc7 = nn.Conv2d(hidden, hidden, 1)
            self.drop = nn.Dropout(dropout)
            self.relu = nn.ReLU(inplace=True)
        self.pooling = GlobalAveragePool() if use == "pooled" else nn.Identity()
        offered = (Level(widths[2], 4), Level(widths[3], 8), Level(widths[4], 8), Level(hidden, 8))
        self.spec = FeatureSpec(tuple(offered[i] for i in self.levels), embed_dim=offered[self.levels[-1]].channels)
        self.apply(kaiming_fan_out)
        self.apply(zero_bias)
        for layer in (self.fc6, self.fc7) if self.dense else ():
            nn.init.xavier_uniform_(layer.weight)  # new layers of DeepLab and ParseNet

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the chosen levels."""
        x, maps = image, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.last_layers:
                maps.append(x)
        if self.dense:
            x = self.drop(self.relu(self.fc6(x)))
            maps.append(self.drop(self.relu(self.fc7(x))))
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Each convolution."""
        convs = [(f"features.{i}.",) for i, layer in enumerate(self.features) if isinstance(layer, nn.Conv2d)]
        return [*convs, ("fc6.",), ("fc7.",)]


# Column D of the paper, and the layer list of DeepLab-LargeFOV; micro is ours.
VARIANTS: dict[str, Hyperparameters] = {
    "micro": {"widths": (16, 32, 64, 64, 64), "hidden": 128, "hidden_std": None, "dropout": 0.0},
    "plain": {},
    "largefov": {},
}


@variant_builder(VGG16, LargeFOV)
def vgg16(
    variant: str = "plain", *, dropout: float | None = None, hidden_as_convs: bool = False, **options: Any
) -> VGG16 | LargeFOV:
    """Builds a VGG-16 by the name of its variant.

    dropout: of the hidden layers; None for that of the variant (0.5; 0 for micro). hidden_as_convs:
    applies the hidden layers of the classifier as convolutions on large maps, as timm does;
    largefov always does.
    """
    hyperparameters = dict(VARIANTS[variant])
    if dropout is not None:
        hyperparameters["dropout"] = dropout
    if variant == "largefov":
        return LargeFOV(**hyperparameters, **options)
    return VGG16(**hyperparameters, hidden_as_convs=hidden_as_convs, **options)
