"""HRNet: Deep High-Resolution Representation Learning (Sun et al., CVPR 2019, arXiv 1902.09212; Wang et al., arXiv 1908.07919).

The network keeps a high-resolution branch from start to end, adds coarser branches one by one, and
exchanges features between all branches in each module.

One difference from the authors' code: maps are upsampled to the size of the target map instead of
by a factor, so any image size is accepted. For multiples of 32 both are equal.

Maps are upsampled by repetition in the authors' classification and pose networks, and by a bilinear
filter in their segmentation networks: `upsampling="bilinear"`, for ADE20K, COCO-Stuff and OCR with
aligned corners, `upsampling="bilinear_aligned"`.
"""

from __future__ import annotations

import functools
import itertools
import operator
from typing import Any

from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.checkpointing import run_block
from spine.layers.conv import conv_norm, conv_norm_act, resize_map
from spine.layers.initialization import kaiming_fan_out
from spine.variants import Hyperparameters, System, variant_builder

UPSAMPLING: dict[str, dict[str, Any]] = {  # arguments of resize_map
    "nearest": {"mode": "nearest"},
    "bilinear": {"mode": "bilinear"},
    "bilinear_aligned": {"mode": "bilinear", "align_corners": True},
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual connection (ResNet)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        branch = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(branch)) + x)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to four times the width, and a residual connection (ResNet)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = conv_norm(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 4 * width, h, w)."""
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        return self.relu(self.bn3(self.conv3(branch)) + self.downsample(x))


class FuseLayer(nn.ModuleDict):
    """Sum of all branches at the resolution of branch `target`.

    It has one path for each of the other branches, by number.
    """

    def __init__(self, channels: tuple[int, ...], target: int, upsampling: str):
        super().__init__({str(j): self._path(channels, j, target) for j in range(len(channels)) if j != target})
        self.target, self.upsampling = target, UPSAMPLING[upsampling]

    @staticmethod
    def _path(channels: tuple[int, ...], source: int, target: int) -> nn.Sequential:
        """Layers from branch `source` to branch `target`, without the upsampling of coarser branches."""
        if source > target:
            return conv_norm(channels[source], channels[target], 1)
        # convolutions of stride 2; only the last one changes the channels, and it has no ReLU
        steps = [conv_norm_act(channels[source], channels[source], 3, 2) for _ in range(target - source - 1)]
        return nn.Sequential(*steps, conv_norm(channels[source], channels[target], 3, 2))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """One map (B, C_j, h_j, w_j) per branch -> (B, C, h, w) of the target branch."""
        size = maps[self.target].shape[-2:]
        terms = [x if j == self.target else resize_map(self[str(j)](x), size, **self.upsampling) for j, x in enumerate(maps)]
        return functools.reduce(operator.add, terms)


class HighResolutionModule(nn.Module):
    """Residual blocks per branch, then a fuse layer per target (exchange unit, paper section 3.1)."""

    def __init__(self, channels: tuple[int, ...], blocks: int, targets: tuple[int, ...], upsampling: str):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(c) for _ in range(blocks))) for c in channels)
        self.fuse_layers = nn.ModuleDict({str(i): FuseLayer(channels, i, upsampling) for i in targets})
        self.relu = nn.ReLU()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One map per branch, fine to coarse -> one map per target."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [self.relu(fuse(maps)) for fuse in self.fuse_layers.values()]


class ClassificationBranch(nn.Module):
    """Widens all branches, sums them from fine to coarse, and averages (arXiv 1908.07919, section 5)."""

    def __init__(self, channels: tuple[int, ...], widths: tuple[int, ...], embed_dim: int, bias: bool):
        """`bias`: of the downsampling convolutions and the last one, although a norm follows."""
        super().__init__()
        outs = [width * Bottleneck.expansion for width in widths]
        self.incre_modules = nn.ModuleList(nn.Sequential(Bottleneck(c, w)) for c, w in zip(channels, widths, strict=True))
        self.downsamp_modules = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=bias), nn.BatchNorm2d(b), nn.ReLU(inplace=True))
            for a, b in itertools.pairwise(outs)
        )
        self.final_layer = nn.Sequential(
            nn.Conv2d(outs[-1], embed_dim, 1, bias=bias), nn.BatchNorm2d(embed_dim), nn.ReLU(inplace=True)
        )

    def forward(self, features: Features) -> Tensor:
        """Features -> (B, D)."""
        y = self.incre_modules[0](features.maps[0])
        for widen, downsample, x in zip(self.incre_modules[1:], self.downsamp_modules, features.maps[1:], strict=True):
            y = widen(x) + downsample(y)
        return self.final_layer(y).mean((2, 3))


class HRNet(Backbone):
    """Four parallel branches with strides 4, 8, 16, 32.

    The last module has fuse layers for the chosen levels only.
    """

    def __init__(
        self,
        width: int,
        modules: tuple[int, int, int] = (1, 4, 3),
        blocks: int = 4,
        stem_blocks: int = 4,
        stem_width: int = 64,
        stem_channels: int = 64,
        head_widths: tuple[int, ...] = (32, 64, 128, 256),
        embed_dim: int = 2048,
        *,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        grad_checkpointing: bool = False,
        head_conv_bias: bool = True,
        upsampling: str = "nearest",
        in_chans: int = 3,
    ):
        """`modules`: of stages 2, 3, 4; `blocks`: per branch; `stem_*`: of the stem and layer1."""
        super().__init__()
        check_use(use)
        if upsampling not in UPSAMPLING:
            raise InputError(f"backbone.upsampling is '{upsampling}'; choose {', '.join(UPSAMPLING)}.")
        self.grad_checkpointing, self.upsampling = grad_checkpointing, upsampling
        channels = tuple(width * 2**i for i in range(4))
        self.levels = (0, 1, 2, 3) if use == "pooled" else pick_levels(levels, 4)
        self.conv1 = nn.Conv2d(in_chans, stem_channels, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_channels)
        self.conv2 = nn.Conv2d(stem_channels, stem_channels, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem_channels)
        self.relu = nn.ReLU(inplace=True)
        wide = stem_width * Bottleneck.expansion
        self.layer1 = nn.Sequential(*(Bottleneck(stem_channels if i == 0 else wide, stem_width) for i in range(stem_blocks)))
        self._build_stages(wide, channels, modules, blocks)
        pooled = use == "pooled"
        self.pooling = ClassificationBranch(channels, head_widths, embed_dim, head_conv_bias) if pooled else nn.Identity()
        self.spec = FeatureSpec(
            tuple(Level(channels[i], 4 * 2**i) for i in self.levels),
            embed_dim=embed_dim if pooled else channels[self.levels[-1]],
            fused=True,
        )
        self.apply(kaiming_fan_out)  # the classification code; the pose code starts from ImageNet weights

    def _build_stages(self, wide: int, channels: tuple[int, ...], modules: tuple[int, int, int], blocks: int) -> None:
        """Stages 2 to 4, each after the transition that adds a branch."""
        self.transition1 = nn.ModuleDict(
            {"0": conv_norm_act(wide, channels[0], 3), "1": nn.Sequential(conv_norm_act(wide, channels[1], 3, 2))}
        )
        self.stage2 = self._stage(channels[:2], modules[0], blocks)
        # the new branch starts from the coarsest map only, although the paper's figure suggests all maps
        self.transition2 = nn.ModuleDict({"2": nn.Sequential(conv_norm_act(channels[1], channels[2], 3, 2))})
        self.stage3 = self._stage(channels[:3], modules[1], blocks)
        self.transition3 = nn.ModuleDict({"3": nn.Sequential(conv_norm_act(channels[2], channels[3], 3, 2))})
        self.stage4 = self._stage(channels, modules[2], blocks, self.levels)

    def _stage(
        self, channels: tuple[int, ...], modules: int, blocks: int, last_targets: tuple[int, ...] | None = None
    ) -> nn.Sequential:
        """`last_targets`: branches into which the last module fuses; None for all."""
        every = tuple(range(len(channels)))
        targets = [every] * (modules - 1) + [every if last_targets is None else last_targets]
        return nn.Sequential(*(HighResolutionModule(channels, blocks, of_module, self.upsampling) for of_module in targets))

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ~H / stride_i, ~W / stride_i) of the chosen levels."""
        x = self.relu(self.bn1(self.conv1(image)))
        x = self.layer1(self.relu(self.bn2(self.conv2(x))))
        maps = self._run(self.stage2, [self.transition1["0"](x), self.transition1["1"](x)])
        maps = self._run(self.stage3, [*maps, self.transition2["2"](maps[-1])])
        return Features(tuple(self._run(self.stage4, [*maps, self.transition3["3"](maps[-1])])))

    def _run(self, stage: nn.Sequential, maps: list[Tensor]) -> list[Tensor]:
        for module in stage:
            maps = run_block(self, module, maps)
        return maps

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The stem; layer1; each module, with the transition before it; the classification branch."""
        groups: list[tuple[str, ...]] = [("conv1.", "bn1.", "conv2.", "bn2."), ("layer1.",)]
        for number, stage in ((1, self.stage2), (2, self.stage3), (3, self.stage4)):
            groups.append((f"transition{number}.", f"stage{number + 1}.0."))
            groups.extend((f"stage{number + 1}.{i}.",) for i in range(1, len(stage)))
        return [*groups, ("pooling.",)]


# Table 2 of arXiv 1908.07919 and the authors' experiment files; micro is ours.
VARIANTS: dict[str, Hyperparameters] = {
    "micro": {"width": 8, "modules": (1, 1, 1), "blocks": 2, "stem_blocks": 1, "stem_width": 16, "stem_channels": 32,
              "head_widths": (8, 16, 32, 64), "embed_dim": 256},
    "w18_small_v1": {"width": 16, "modules": (1, 1, 1), "blocks": 2, "stem_blocks": 1, "stem_width": 32},
    "w18_small_v2": {"width": 18, "modules": (1, 3, 2), "blocks": 2, "stem_blocks": 2},
    "w18": {"width": 18},
    "w30": {"width": 30},
    "w32": {"width": 32},
    "w40": {"width": 40},
    "w44": {"width": 44},
    "w48": {"width": 48},
    "w64": {"width": 64},
}  # fmt: skip

# The authors' segmentation head is one 1x1 convolution of all maps before the classifier. Theirs with OCR aligns corners.
SYSTEMS: dict[str, dict[str, System]] = {
    "fcn": {
        variant: System(
            head={"channels": 15 * row["width"], "num_convs": 0, "join_norm": True, "dropout": 0.0},
            backbone={"upsampling": "bilinear"},
        )
        for variant, row in VARIANTS.items()
    },
    "ocr": dict.fromkeys(VARIANTS, System(head={"align_corners": True}, backbone={"upsampling": "bilinear_aligned"})),
}


@variant_builder(HRNet)
def hrnet(variant: str = "w32", **options: Any) -> HRNet:
    """Builds an HRNet by the name of its variant.

    head_conv_bias: whether the convolutions of the classification branch have biases before its
    norms: True in the authors' code, False in OpenMMLab's. upsampling: nearest, bilinear or
    bilinear_aligned, of the maps of coarser branches.
    """
    return HRNet(**VARIANTS[variant], **options)
