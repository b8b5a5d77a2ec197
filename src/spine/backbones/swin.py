"""Swin: Hierarchical Vision Transformer using Shifted Windows (Liu et al., ICCV 2021, arXiv 2103.14030).

A transformer with self-attention inside windows. Every second block shifts the windows by half
their size, and patches are merged two by two between the stages. It returns a feature pyramid like
a convolutional network, at linear cost.

Any image size is accepted: image, windows and merged patches are padded at the right and bottom as
needed, as in the authors' code for dense tasks. The padding is zeros after the first norm, and
tokens attend to it. On maps with a side that is not longer than the window, the window shrinks to
the shorter side and is not shifted, as in the authors' classification code, and the middle of the
relative position bias table is used; `small_maps` selects other behavior. Absolute position
embeddings, which no published network has, are not implemented.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Backbone, Features, FeatureSpec, Level, Use, check_use, pick_levels
from spine.layers.checkpointing import run_block
from spine.layers.drop_path import DropPath, drop_path_rates
from spine.layers.initialization import truncated_normal
from spine.layers.transformer import MLP, attention
from spine.variants import Hyperparameters, System, variant_builder

# Maps with a side that is not longer than the window. shrink: the window shrinks to the shorter side and is not shifted (the authors'
# classification code, Hugging Face); pad: such a side is padded and not shifted (torchvision); shift: it is padded and shifted
# like all others (the authors' code for dense tasks, OpenMMLab).
SmallMaps = Literal["shrink", "pad", "shift"]


def pad_to_multiple(x: Tensor, side: int) -> Tensor:
    """Pads maps (B, h, w, C) with zeros at the right and bottom to multiples of `side`."""
    down, right = -x.shape[1] % side, -x.shape[2] % side
    return F.pad(x, (0, 0, 0, right, 0, down)) if down or right else x


@torch.inference_mode(False)  # a cached inference tensor would raise an error in later training
def shift_mask(size: tuple[int, int], window: int, shift: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns the attention mask (windows, N, N) of a map of `size` that was rolled by `shift`.

    It is 0 for pairs of tokens that were in one region before the roll, and -100 for all others.
    """
    height, width = size
    rows, columns = (
        (torch.arange(side, device=device) >= side - window).long() + (torch.arange(side, device=device) >= side - by)
        for side, by in zip(size, shift, strict=True)
    )
    regions = 3 * rows[:, None] + columns  # (h, w), nine regions
    regions = regions.view(height // window, window, width // window, window).transpose(1, 2).reshape(-1, window * window)
    return (regions[:, :, None] != regions[:, None, :]).to(dtype) * -100.0  # not -inf: trained networks may depend on it


cached_shift_mask = functools.lru_cache(maxsize=16)(shift_mask)  # an image size needs three or four


class WindowAttention(nn.Module):
    """Self-attention inside windows with relative position bias (paper section 3.2)."""

    relative_position_index: Tensor  # (M, M, M, M): row and column of the query, row and column of the key

    def __init__(self, dim: int, num_heads: int, window_size: int):
        super().__init__()
        self.num_heads = num_heads
        offsets = torch.arange(window_size)[:, None] - torch.arange(window_size) + window_size - 1  # query minus key, from 0
        index = offsets[:, None, :, None] * (2 * window_size - 1) + offsets[None, :, None, :]
        self.register_buffer("relative_position_index", index, persistent=False)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def _bias(self, window: int) -> Tensor:
        """Returns the relative position bias (heads, N, N), N = window * window."""
        index = self.relative_position_index[:window, :window, :window, :window].flatten()
        return self.relative_position_bias_table.T.index_select(1, index).view(-1, window * window, window * window)

    def forward(self, x: Tensor, window: int, shift: tuple[int, int]) -> Tensor:
        """(B, h, w, C), sides multiples of `window` -> (B, h, w, C)."""
        B, H, W, _ = x.shape
        rows, columns = H // window, W // window
        # one copy for windows and heads: (3, B, rows, columns, heads, window, window, C / heads)
        qkv = self.qkv(x).view(B, rows, window, columns, window, 3, self.num_heads, -1).permute(5, 0, 1, 3, 6, 2, 4, 7)
        qkv = qkv.reshape(3, B, rows * columns, self.num_heads, window * window, -1)
        bias = self._bias(window)
        if any(shift):  # masks differ between windows: windows and heads become one dimension, broadcast over the batch
            mask = shift_mask if torch.compiler.is_compiling() else cached_shift_mask
            bias = (bias + mask((H, W), window, shift, x.device, bias.dtype)[:, None]).flatten(0, 1)
            q, k, v = qkv.flatten(2, 3)
        else:
            q, k, v = qkv.flatten(1, 2)
        x = attention(q, k, v, bias[None]).view(B, rows, columns, self.num_heads, window, window, -1).permute(0, 1, 4, 2, 5, 3, 6)
        return self.proj(x.reshape(B, H, W, -1))


class Block(nn.Module):
    """Window attention and MLP, each with a layer norm before it and a residual connection."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        shifted: bool,
        mlp_ratio: float,
        drop_path: float,
        small_maps: SmallMaps = "shrink",
    ):
        super().__init__()
        self.window_size, self.shift, self.small_maps = window_size, window_size // 2 if shifted else 0, small_maps
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window_size)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def _windows(self, height: int, width: int) -> tuple[int, tuple[int, int]]:
        """Returns the window size for a map of this size, and the shift down and to the right.

        Raises InputError in a graph with symbols for the sides: windows and masks are made for one size.
        """
        if torch.compiler.is_exporting() and not isinstance(height, int):
            raise InputError("Swin's windows are placed for one image size, and not in the graph of the network.")
        if self.small_maps == "shrink" and min(height, width) <= self.window_size:
            return min(height, width), (0, 0)
        down, right = (self.shift if side > self.window_size or self.small_maps == "shift" else 0 for side in (height, width))
        return self.window_size, (down, right)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, h, w, C)."""
        _, H, W, _ = x.shape
        window, (down, right) = self._windows(H, W)
        branch = pad_to_multiple(self.norm1(x), window)
        if down or right:
            branch = branch.roll((-down, -right), (1, 2))
        branch = self.attn(branch, window, (down, right))
        if down or right:
            branch = branch.roll((down, right), (1, 2))
        x = x + self.drop_path(branch[:, :H, :W])
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """Merges 2x2 tokens: layer norm of 4C channels, then a linear layer to 2C without bias."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, ceil(h / 2), ceil(w / 2), 2C)."""
        B, H, W, C = (x := pad_to_multiple(x, 2)).shape
        x = x.view(B, H // 2, 2, W // 2, 2, C).permute(
            0, 1, 3, 4, 2, 5
        )  # of the four tokens, the lower one comes before the right one
        return self.reduction(self.norm(x.reshape(B, H // 2, W // 2, 4 * C)))


class PatchEmbed(nn.Module):
    """One token per 4x4 patch: a convolution and a layer norm."""

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, 4, 4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, ceil(H / 4), ceil(W / 4), C)."""
        down, right = -image.shape[2] % 4, -image.shape[3] % 4
        image = F.pad(image, (0, right, 0, down)) if down or right else image
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class NormPool(nn.Module):
    """Layer norm of the tokens, then global average."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Features) -> Tensor:
        """Features -> (B, C)."""
        return self.norm(features.maps[-1].permute(0, 2, 3, 1)).mean((1, 2))


class Stage(nn.Module):
    """Blocks of one stride, and the patch merging after them."""

    def __init__(self, blocks: Iterable[Block], downsample: PatchMerging | None):
        """`downsample`: None in the last stage."""
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample


def initialize(module: nn.Module) -> None:
    """Linear layers and tables: truncated normal of std 0.02, biases zero (the authors).

    The convolution keeps PyTorch's default.
    """
    if isinstance(module, nn.Linear):
        truncated_normal(module)
    elif isinstance(module, WindowAttention):
        nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)


class Swin(Backbone):
    """Four stages with strides 4, 8, 16, 32.

    It has one norm per level for "maps", and one norm before the average for "pooled".
    """

    def __init__(
        self,
        embed_dim: int,
        depths: tuple[int, ...],
        num_heads: tuple[int, ...],
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        *,
        use: Use = "pooled",
        levels: tuple[int, ...] | None = None,
        drop_path_rate: float = 0.0,
        grad_checkpointing: bool = False,
        small_maps: SmallMaps = "shrink",
        in_chans: int = 3,
    ):
        super().__init__()
        check_use(use)
        if small_maps not in ("shrink", "pad", "shift"):
            raise InputError(f"small_maps is '{small_maps}'; choose shrink, pad or shift.")
        self.grad_checkpointing = grad_checkpointing
        self.levels = (len(depths) - 1,) if use == "pooled" else pick_levels(levels, len(depths))
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.depths = depths = depths[: self.levels[-1] + 1]  # later stages are not needed
        dims = [embed_dim * 2**i for i in range(len(depths))]
        self.patch_embed = PatchEmbed(in_chans, embed_dim)
        self.layers = nn.ModuleList()
        for i, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
            blocks = [Block(dim, num_heads[i], window_size, j % 2 == 1, mlp_ratio, next(rates), small_maps) for j in range(depth)]
            self.layers.append(Stage(blocks, PatchMerging(dim) if i + 1 < len(depths) else None))
        self.norms = nn.ModuleDict({str(i): nn.LayerNorm(dims[i]) for i in self.levels} if use == "maps" else {})
        self.pooling = NormPool(dims[-1]) if use == "pooled" else nn.Identity()
        self.spec = FeatureSpec(tuple(Level(dims[i], 4 * 2**i) for i in self.levels), embed_dim=dims[-1])
        self.apply(initialize)

    def forward(self, image: Tensor) -> Features:
        """(B, 3, H, W) -> maps (B, C_i, ceil(H / stride_i), ceil(W / stride_i)) of the chosen levels."""
        x, maps = self.patch_embed(image), []
        for i, stage in enumerate(cast(Iterable[Stage], self.layers)):
            for block in stage.blocks:
                x = run_block(self, block, x)
            if i in self.levels:
                maps.append((self.norms[str(i)](x) if self.norms else x).permute(0, 3, 1, 2))
            if stage.downsample is not None:
                x = stage.downsample(x)
        return Features(tuple(maps))

    def layer_groups(self) -> list[tuple[str, ...]]:
        """The patch embedding; each block; the norms (the authors' `get_swin_layer`).

        The last block of a stage includes the patch merging after it.
        """
        groups: list[tuple[str, ...]] = [("patch_embed.",)]
        for i, depth in enumerate(self.depths):
            groups += [(f"layers.{i}.blocks.{j}.",) for j in range(depth)]
            groups[-1] += (f"layers.{i}.downsample.",)
        return [*groups, ("norms.", "pooling.")]


# Paper section 3.3; the authors fine-tune networks with windows of 12 at 384 px; micro is ours.
BASE = {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)}
LARGE = {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)}
VARIANTS: dict[str, Hyperparameters] = {
    "micro": {"embed_dim": 16, "depths": (2, 2, 4, 2), "num_heads": (1, 2, 4, 8), "window_size": 4},
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": BASE,
    "large": LARGE,
    "base_window12": {**BASE, "window_size": 12},
    "large_window12": {**LARGE, "window_size": 12},
}

# The authors' UPerNet: the head's defaults, and an auxiliary head that reads the third map.
SYSTEMS: dict[str, dict[str, System]] = {"upernet": dict.fromkeys(VARIANTS, System(auxiliary_head={"level": 2}))}


@variant_builder(Swin)
def swin(variant: str = "tiny", **options: Any) -> Swin:
    """Builds a Swin transformer by the name of its variant.

    small_maps: how windows are placed on maps with a side that is not longer than the window (see
    SmallMaps).
    """
    return Swin(**VARIANTS[variant], **options)
