"""ViT: An Image is Worth 16x16 Words (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929).

Patches become tokens, a class token is put before them, learned positions are added, and a plain pre-norm transformer does the
rest. GELU is exact here, as in timm and torchvision; the authors' flax code approximates it, and their files bring that. Built for maps it
emits the tokens after each quarter of the depth, without a norm and all at the stride of the patch. The hybrids (paper section 3.1) cut
their patches from the map of a ResNet.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Backbone, Features, FeatureSpec, Level, Tokens, Use, check_use, pick_levels
from spine.layers.checkpointing import checkpointed
from spine.layers.drop_path import drop_path_rates
from spine.layers.positions import resize_positions
from spine.layers.transformer import ClassTokenNorm, PatchEmbed, TransformerBlock, patch_grid, xavier_linear

EPS = 1e-6  # of every norm


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """TensorFlow's SAME padding of maps (B, C, h, w): the odd pixel goes to the right and bottom."""
    down, right = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
    return F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2), value=value)


class StdConv(nn.Conv2d):
    """Convolution without bias, SAME padding, whose filters are standardised."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, eps: float | None = None):
        """Filters are divided by sqrt(variance + eps); `eps` None divides them by deviation + 1e-5, as the authors do."""
        super().__init__(in_channels, out_channels, kernel, stride, bias=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        deviation = variance.sqrt() + 1e-5 if self.eps is None else (variance + self.eps).sqrt()
        weight = (self.weight - mean) / deviation
        return F.conv2d(pad_same(x, self.kernel_size[0], self.stride[0]), weight, stride=self.stride)


class Epsilons(NamedTuple):
    """Of a hybrid's ResNet: its group norms, and its standardised convolutions (None: the authors' rule)."""

    norm: float = EPS
    conv: float | None = None


class StdConvNorm(nn.Module):
    """A standardised convolution and its group norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, eps: Epsilons):
        super().__init__()
        self.conv = StdConv(in_channels, out_channels, kernel, stride, eps.conv)
        self.norm = nn.GroupNorm(32, out_channels, eps=eps.norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        return self.norm(self.conv(x))


class Bottleneck(nn.Module):
    """The hybrids' residual unit: norms behind the convolutions, the stride on the 3x3, the last norm's scale starting at zero."""

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
    """The hybrids' first layers: a 7x7 convolution and a max-pool, to stride 4."""

    channels, stride = 64, 4

    def __init__(self, in_chans: int, eps: Epsilons):
        super().__init__(in_chans, self.channels, 7, 2, eps)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 64, H / 4, W / 4)."""
        return F.max_pool2d(pad_same(F.relu(super().forward(image)), 3, 2, value=float("-inf")), 3, 2)


class ResNet(nn.Module):
    """The convolutional front of the hybrids: the stem and as many stages as `depths` names, the first at stride 4."""

    def __init__(self, depths: tuple[int, ...], in_chans: int, eps: Epsilons):
        super().__init__()
        self.stem = Stem(in_chans, eps)
        self.stages = nn.ModuleList()
        channels = self.stem.channels
        for i, depth in enumerate(depths):
            units = []
            for j in range(depth):
                units.append(Bottleneck(channels, 64 * 2**i, 2 if i > 0 and j == 0 else 1, eps))
                channels = 4 * 64 * 2**i
            self.stages.append(nn.ModuleDict({"blocks": nn.Sequential(*units)}))
        self.channels, self.stride = channels, self.stem.stride * 2 ** (len(depths) - 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H / stride, W / stride)."""
        x = self.stem(image)
        stage: Any
        for stage in self.stages:
            x = stage["blocks"](x)
        return x


class HybridEmbed(nn.Module):
    """One token a patch of a ResNet's map, or of its stem's where it has no stages."""

    def __init__(self, in_chans: int, embed_dim: int, patch_size: int, resnet: tuple[int, ...], eps: Epsilons):
        super().__init__()
        self.backbone = ResNet(resnet, in_chans, eps) if resnet else Stem(in_chans, eps)
        self.patch_size = patch_size * self.backbone.stride  # in image pixels
        self.proj = nn.Conv2d(self.backbone.channels, embed_dim, patch_size, patch_size)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, H / P, W / P)."""
        return self.proj(self.backbone(image))


class ViT(Backbone):
    """A vision transformer; for masked pre-training ("drop") hidden patches are left out before the first block, as in MAE."""

    def __init__(
        self,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        resnet: tuple[int, ...] | None = None,
        mlp_ratio: float = 4.0,
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
        """`resnet`: depths of the stages of a hybrid's front; `patch_size` is then that of its map.

        `group_norm_eps`, `std_conv_eps`: of a hybrid's ResNet, the latter under the root (None: the authors' deviation + 1e-5);
        `gelu`: how it is approximated, none or tanh.
        """
        super().__init__()
        self.grad_checkpointing = grad_checkpointing
        # a ResNet in front would carry hidden pixels into visible tokens: hybrids cannot drop patches
        check_use(use, ("pooled", "maps", "drop") if resnet is None else ("pooled", "maps"))
        if resnet is None:
            self.patch_embed: Any = PatchEmbed(in_chans, embed_dim, patch_size)
        else:
            self.patch_embed = HybridEmbed(in_chans, embed_dim, patch_size, resnet, Epsilons(group_norm_eps, std_conv_eps))
        self.patch_size = self.patch_embed.patch_size
        self.grid = patch_grid(image_size, self.patch_size)
        self.levels = (3,) if use != "maps" else pick_levels(levels, 4)
        self.last_blocks = [depth * (i + 1) // 4 - 1 for i in self.levels]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], embed_dim))
        self.pos_drop = nn.Dropout(dropout)
        rates = drop_path_rates(drop_path_rate, depth)[: self.last_blocks[-1] + 1]
        self.blocks = nn.Sequential(
            *(TransformerBlock(embed_dim, num_heads, mlp_ratio, dropout, rate, norm_eps, gelu) for rate in rates)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps) if use == "drop" else None  # of all tokens, before MAE's decoder
        self.pooling = ClassTokenNorm(embed_dim, norm_eps) if use == "pooled" else nn.Identity()
        level = Level(embed_dim, self.patch_size)
        masking = frozenset({"drop"} if resnet is None else ())
        self.spec = FeatureSpec((level,) * len(self.levels), embed_dim, self.patch_size, self.grid, masking)
        self._initialize()

    def _initialize(self) -> None:
        """Xavier-uniform kernels, MLP biases normal of std 1e-6, positions normal of std 0.02, class token zero (the authors')."""
        self.apply(xavier_linear)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))  # as a linear layer
        nn.init.zeros_(self.patch_embed.proj.bias)
        nn.init.normal_(self.pos_embed, std=0.02)
        block: Any
        for block in self.blocks:
            for part in block.attn.qkv.weight.chunk(3):  # query, key and value are three layers to the authors
                nn.init.xavier_uniform_(part)
            nn.init.normal_(block.mlp.fc1.bias, std=1e-6)
            nn.init.normal_(block.mlp.fc2.bias, std=1e-6)

    def _embed(self, image: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Patch tokens (B, N, D) and class token (B, 1, D), both with their positions; the grid of this image size."""
        grid = patch_grid(image.shape[-2:], self.patch_size)
        positions = resize_positions(self.pos_embed, self.grid, grid)
        patches = self.patch_embed(image).flatten(2).transpose(1, 2) + positions[:, 1:]
        cls_token = (self.cls_token + positions[:, :1]).expand(len(image), -1, -1)
        return patches, cls_token, grid

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, D, H / P, W / P) after the chosen quarters of the depth, class token (B, D) of the last block."""
        patches, cls_token, grid = self._embed(image)
        x, maps = self.pos_drop(torch.cat([cls_token, patches], dim=1)), []
        for i, block in enumerate(self.blocks):
            x = checkpointed(block, x) if self.grad_checkpointing and self.training else block(x)
            if i in self.last_blocks:
                maps.append(x[:, 1:].transpose(1, 2).unflatten(2, grid))
        return Features(tuple(maps), x[:, 0])

    def forward_masked(self, image: Tensor, patch_mask: Tensor, masking: str = "drop") -> Tokens:
        """Encodes only the visible patches: (B, 3, H, W), (B, N) True = hidden -> (B, N_visible, D), (B, D), behind the last norm."""
        if masking != "drop" or self.norm is None:
            raise InputError(f"This ViT was not built to {masking} patches; build it with use='drop'.")
        patches, cls_token, _ = self._embed(image)  # positions are added BEFORE patches are left out
        visible = patches[~patch_mask].view(len(image), -1, patches.shape[-1])
        x = self.pos_drop(torch.cat([cls_token, visible], dim=1))
        for block in self.blocks:
            x = checkpointed(block, x) if self.grad_checkpointing and self.training else block(x)
        x = self.norm(x)
        return Tokens(x[:, 1:], x[:, 0])

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The tokens, positions and patch embedding; each block; the last norm."""
        blocks = ((f"blocks.{i}.",) for i in range(len(self.blocks)))
        return [("cls_token", "pos_embed", "patch_embed."), *blocks, ("norm.", "pooling.")]


# Paper table 1, and table 2 of "How to train your ViT?" (arXiv 2106.10270) for tiny, small and base_patch8; micro is ours.
TINY = {"embed_dim": 192, "depth": 12, "num_heads": 3}
SMALL = {"embed_dim": 384, "depth": 12, "num_heads": 6}
BASE = {"embed_dim": 768, "depth": 12, "num_heads": 12}
LARGE = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
HUGE = {"embed_dim": 1280, "depth": 32, "num_heads": 16}
VARIANTS: dict[str, dict[str, Any]] = {
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
    # hybrids: for /16 the blocks of the fourth stage of a ResNet-50 stand in its third
    "tiny_r_s16_p8": {**TINY, "patch_size": 8, "resnet": ()},
    "small_r26_s32": {**SMALL, "patch_size": 1, "resnet": (2, 2, 2, 2)},
    "base_r26_s32": {**BASE, "patch_size": 1, "resnet": (2, 2, 2, 2)},
    "base_r50_s32": {**BASE, "patch_size": 1, "resnet": (3, 4, 6, 3)},
    "base_r50_s16": {**BASE, "patch_size": 1, "resnet": (3, 4, 9)},
    "large_r50_s32": {**LARGE, "patch_size": 1, "resnet": (3, 4, 6, 3)},
    "large_r50_s16": {**LARGE, "patch_size": 1, "resnet": (3, 4, 9)},
}


def vit(
    variant: str = "base_patch16",
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
) -> ViT:
    """A ViT by the name of its variant, its table of positions made for `image_size` (height, width).

    `norm_eps` and `gelu` (none or tanh, its approximation), `group_norm_eps` and `std_conv_eps` of hybrids: conventions of publishers.
    """
    return ViT(
        **VARIANTS[variant],
        image_size=image_size,
        use=use,
        levels=levels,
        dropout=dropout,
        drop_path_rate=drop_path_rate,
        grad_checkpointing=grad_checkpointing,
        norm_eps=norm_eps,
        group_norm_eps=group_norm_eps,
        std_conv_eps=std_conv_eps,
        gelu=gelu,
        in_chans=in_chans,
    )
