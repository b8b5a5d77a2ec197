"""A plain convolutional network: four stages of 3x3 convolutions. An example of a backbone in a plug-in."""

from torch import Tensor, nn

from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.conv import GlobalAveragePool, conv_norm_act
from spine.variants import variant_builder

VARIANTS = {"micro": {"dims": (16, 32, 64, 128)}, "small": {"dims": (64, 128, 256, 512)}}


class PlainNet(Backbone):
    """Stages at strides 4, 8, 16 and 32, one convolution each."""

    def __init__(self, dims: tuple[int, ...], *, use: Use = "pooled", levels: tuple[int, ...] | None = None, in_chans: int = 3):
        super().__init__()
        check_use(use)
        self.levels = (len(dims) - 1,) if use == "pooled" else pick_levels(levels, len(dims))
        dims = dims[: self.levels[-1] + 1]  # no stage that is not read
        self.stem = conv_norm_act(in_chans, dims[0], 3, 2)
        inputs = (dims[0], *dims[:-1])
        self.stages = nn.ModuleList(conv_norm_act(a, b, 3, 2) for a, b in zip(inputs, dims, strict=True))
        self.pooling = GlobalAveragePool()
        self.spec = FeatureSpec(tuple(Level(dims[i], 4 * 2**i) for i in self.levels), embed_dim=dims[-1])

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, H / stride_i, W / stride_i) of the chosen levels."""
        x, maps = self.stem(image), []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.levels:
                maps.append(x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem, then each stage."""
        return [("stem.",), *((f"stages.{i}.",) for i in range(len(self.stages)))]


@variant_builder(PlainNet)
def plain_net(variant: str = "small", **options) -> PlainNet:
    """A PlainNet by the name of its variant."""
    return PlainNet(**VARIANTS[variant], **options)
