"""ViT: An Image is Worth 16x16 Words (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929).

An image becomes a sequence of patch tokens with a class token in front and a learned position
embedding, the input of a plain pre-norm transformer. The hybrids (paper section 3.1) take their
patches from the feature map of a ResNet.

GELU is exact by default, as in timm and torchvision. The authors' flax code approximates it, and
their weight files set `gelu="tanh"`. Built for "maps", the network returns the tokens after each
quarter of the depth, without a norm, all with the stride of the patches. Built for "drop" (masked
pre-training), masked patches are dropped before the first block, as in MAE.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.interfaces import Use
from spine.layers.conv import pad_same
from spine.layers.initialization import zero_bias
from spine.layers.transformer import ClassTokenNorm, PatchEmbed, TransformerBlock
from spine.layers.vit_encoder import ViTEncoder
from spine.variants import Hyperparameters, variant_builder, with_patch_size

EPS = 1e-6  # of all norms


class StdConv(nn.Conv2d):
    """Convolution with standardized filters and SAME padding, without bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, eps: float | None = None):
        """Filters are divided by sqrt(variance + eps).

        If `eps` is None they are divided by the standard deviation + 1e-5 (the authors).
        """
        super().__init__(in_channels, out_channels, kernel, stride, bias=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        std = variance.sqrt() + 1e-5 if self.eps is None else (variance + self.eps).sqrt()
        weight = (self.weight - mean) / std
        return F.conv2d(pad_same(x, self.kernel_size[0], self.stride[0]), weight, stride=self.stride)


class Epsilons(NamedTuple):
    """Epsilons of group norms and standardized convolutions in the ResNet of a hybrid."""

    norm: float = EPS
    conv: float | None = None


class StdConvNorm(nn.Module):
    """Standardized convolution and group norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, eps: Epsilons):
        super().__init__()
        self.conv = StdConv(in_channels, out_channels, kernel, stride, eps.conv)
        self.norm = nn.GroupNorm(32, out_channels, eps=eps.norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        return self.norm(self.conv(x))


class Bottleneck(nn.Module):
    """Bottleneck of the hybrids: group norm after each convolution, the stride in the 3x3.

    The initial scale of the last norm is zero.
    """

    def __init__(self, in_channels: int, width: int, stride: int, eps: Epsilons):
        super().__init__()
        out_channels = 4 * width
        self.conv1, self.norm1 = StdConv(in_channels, width, 1, eps=eps.conv), nn.GroupNorm(32, width, eps=eps.norm)
        self.conv2, self.norm2 = StdConv(width, width, 3, stride, eps.conv), nn.GroupNorm(32, width, eps=eps.norm)
        self.conv3, self.norm3 = StdConv(width, out_channels, 1, eps=eps.conv), nn.GroupNorm(32, out_channels, eps=eps.norm)
        nn.init.zeros_(self.norm3.weight)
        changes = stride != 1 or in_channels != out_channels
        self.downsample = StdConvNorm(in_channels, out_channels, 1, stride, eps) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 4 * width, h / stride, w / stride)."""
        branch = F.relu(self.norm1(self.conv1(x)))
        branch = F.relu(self.norm2(self.conv2(branch)))
        return F.relu(self.norm3(self.conv3(branch)) + self.downsample(x))


class Stem(StdConvNorm):
    """First layers of the hybrids: 7x7 convolution and max pooling, to stride 4."""

    channels, stride = 64, 4

    def __init__(self, in_chans: int, eps: Epsilons):
        super().__init__(in_chans, self.channels, 7, 2, eps)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 64, H / 4, W / 4)."""
        return F.max_pool2d(pad_same(F.relu(super().forward(image)), 3, 2, value=float("-inf")), 3, 2)


class ResNet(nn.Module):
    """ResNet of the hybrids: the stem and one stage per entry of `depths`, the first of stride 4."""

    def __init__(self, depths: tuple[int, ...], in_chans: int, eps: Epsilons):
        super().__init__()
        self.stem = Stem(in_chans, eps)
        self.stages = nn.ModuleList()
        channels = self.stem.channels
        for i, depth in enumerate(depths):
            blocks = nn.Sequential()
            for j in range(depth):
                blocks.append(Bottleneck(channels, 64 * 2**i, 2 if i > 0 and j == 0 else 1, eps))
                channels = 4 * 64 * 2**i
            stage = nn.Sequential()
            stage.add_module("blocks", blocks)
            self.stages.append(stage)
        self.channels, self.stride = channels, self.stem.stride * 2 ** (len(depths) - 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H / stride, W / stride)."""
        x = self.stem(image)
        for stage in self.stages:
            x = stage(x)
        return x


class HybridEmbed(nn.Module):
    """One token per patch of the map of a ResNet, or of its stem if `depths` is empty."""

    def __init__(self, in_chans: int, embed_dim: int, patch_size: int, depths: tuple[int, ...], eps: Epsilons):
        super().__init__()
        self.backbone = ResNet(depths, in_chans, eps) if depths else Stem(in_chans, eps)
        self.patch_size = patch_size * self.backbone.stride  # in image pixels
        self.proj = nn.Conv2d(self.backbone.channels, embed_dim, patch_size, patch_size)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, H / P, W / P)."""
        return self.proj(self.backbone(image))


class ViT(ViTEncoder):
    """Vision transformer with a learned position embedding.

    The pooled embedding is the class token after the last norm.
    """

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        resnet: tuple[int, ...] | None = None,
        mlp_ratio: float = 4.0,
        *,
        image_size: tuple[int, int] = (224, 224),
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        grad_checkpointing: bool = False,
        norm_eps: float = EPS,
        group_norm_eps: float = EPS,
        std_conv_eps: float | None = None,
        gelu: str = "none",
        in_chans: int = 3,
    ):
        """`resnet`: stage depths of a hybrid's ResNet; `patch_size` is then in pixels of its map."""
        super().__init__(
            PatchEmbed(in_chans, embed_dim, patch_size)
            if resnet is None
            else HybridEmbed(in_chans, embed_dim, patch_size, resnet, Epsilons(group_norm_eps, std_conv_eps)),
            depth,
            num_heads,
            mlp_ratio,
            image_size=image_size,
            use=use,
            levels=levels,
            dropout=dropout,
            drop_path_rate=drop_path_rate,
            norm_eps=norm_eps,
            gelu=gelu,
            can_drop=resnet is None,  # the ResNet of a hybrid would mix masked pixels into visible tokens
        )
        self.grad_checkpointing = grad_checkpointing
        self.pooling = ClassTokenNorm(embed_dim, norm_eps) if use == "pooled" else nn.Identity()
        self._initialize()

    def _initialize(self) -> None:
        """Initialization of the authors.

        Xavier-uniform weights, MLP biases normal of std 1e-6, positions normal of std 0.02, class
        token zero.
        """
        zero_bias(self.patch_embed.proj)
        nn.init.normal_(self.pos_embed, std=0.02)
        for block in self.modules():
            if isinstance(block, TransformerBlock):
                for part in block.attn.qkv.weight.chunk(3):  # query, key and value are three layers in the authors' code
                    nn.init.xavier_uniform_(part)
                nn.init.normal_(block.mlp.fc1.bias, std=1e-6)
                nn.init.normal_(block.mlp.fc2.bias, std=1e-6)


# Paper table 1, and table 2 of "How to train your ViT?" (arXiv 2106.10270) for tiny, small and base_patch8; micro is ours.
TINY = {"embed_dim": 192, "depth": 12, "num_heads": 3}
SMALL = {"embed_dim": 384, "depth": 12, "num_heads": 6}
BASE = {"embed_dim": 768, "depth": 12, "num_heads": 12}
LARGE = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
HUGE = {"embed_dim": 1280, "depth": 32, "num_heads": 16}
VARIANTS: dict[str, Hyperparameters] = {
    "micro": {"embed_dim": 128, "depth": 4, "num_heads": 4, "patch_size": 16},
    "tiny_patch16": {**TINY, "patch_size": 16},
    "small_patch32": {**SMALL, "patch_size": 32},
    "small_patch16": {**SMALL, "patch_size": 16},
    "base_patch32": {**BASE, "patch_size": 32},
    "base_patch16": {**BASE, "patch_size": 16},
    "base_patch8": {**BASE, "patch_size": 8},
    "large_patch32": {**LARGE, "patch_size": 32},
    "large_patch16": {**LARGE, "patch_size": 16},
    "huge_patch14": {**HUGE, "patch_size": 14},
    # hybrids; for /16 the blocks of the fourth stage of a ResNet-50 are in its third stage
    "tiny_r_s16_p8": {**TINY, "patch_size": 8, "resnet": ()},
    "small_r26_s32": {**SMALL, "patch_size": 1, "resnet": (2, 2, 2, 2)},
    "base_r26_s32": {**BASE, "patch_size": 1, "resnet": (2, 2, 2, 2)},
    "base_r50_s32": {**BASE, "patch_size": 1, "resnet": (3, 4, 6, 3)},
    "base_r50_s16": {**BASE, "patch_size": 1, "resnet": (3, 4, 9)},
    "large_r50_s32": {**LARGE, "patch_size": 1, "resnet": (3, 4, 6, 3)},
    "large_r50_s16": {**LARGE, "patch_size": 1, "resnet": (3, 4, 9)},
}


@variant_builder(ViT)
def vit(variant: str = "base_patch16", *, patch_size: int | None = None, **options: Any) -> ViT:
    """Builds a ViT by the name of its variant.

    patch_size: in pixels; None for that of the variant. Hybrids have a fixed one. image_size:
    (height, width) for which the position embedding is created. The others are
    conventions of publishers: `norm_eps`; `gelu`, its approximation, "none" or "tanh"; for hybrids
    `group_norm_eps`, and `std_conv_eps` of the standardized convolutions: None divides by the
    standard deviation + 1e-5 (the authors), a number by sqrt(variance + number).
    """
    return ViT(**with_patch_size(VARIANTS[variant], patch_size), **options)
