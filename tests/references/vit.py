"""ViT: timm's; its hybrids with the two constants of the authors' flax code, where timm's are others."""

from recording import CLASSES, Case, renamed
from torch import nn
from torch.nn import functional as F

from spine.backbones.vit import LAYOUT


def timm(size):
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(size, num_classes=CLASSES, embed_dim=128, depth=4, num_heads=4)


def hybrid():
    """The authors divide filters by their deviation plus 1e-5, and their group norms have eps 1e-6."""
    import timm
    from timm.layers import StdConv2dSame, pad_same

    class AuthorsConv(StdConv2dSame):
        def forward(self, x):
            x = pad_same(x, self.kernel_size, self.stride, self.dilation)
            mean, deviation = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), correction=0, keepdim=True)
            return F.conv2d(x, (self.weight - mean) / (deviation + 1e-5), None, self.stride)

    net = timm.create_model("vit_small_r26_s32_224", num_classes=CLASSES)
    for module in net.modules():
        if isinstance(module, StdConv2dSame):
            module.__class__ = AuthorsConv
        elif isinstance(module, nn.GroupNorm):
            module.eps = 1e-6
    return net


def plain(size):
    return Case(
        f"vit-timm-{size[0]}x{size[1]}",
        "timm VisionTransformer",
        lambda: timm(size),
        "micro",
        renamed(LAYOUT),
        options={"image_size": size},
        sizes=(size,),
        train_size=size,
    )


CASES = [
    plain((224, 224)),
    plain((160, 192)),
    Case(
        "vit-timm-hybrid",
        "timm vit_small_r26_s32_224, its filters standardised as the authors do",
        hybrid,
        "small_r26_s32",
        renamed(LAYOUT),
        sizes=((224, 224),),
        train_size=(224, 224),
    ),
]
