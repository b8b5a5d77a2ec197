"""Adapts the tensors of a weight file to a network with another use or image size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from spine.checkpoints.input_settings import settings_of_config
from spine.checkpoints.mapping import SPINE_LAYOUT, State
from spine.checkpoints.reader import WeightFile
from spine.layers.conv import PoolNorm
from spine.layers.positions import resize_positions, resize_relative_positions
from spine.layers.transformer import resize_patch_kernel

if TYPE_CHECKING:
    from spine.models.masked import MaskedModel
    from spine.models.network import Model

POSITION_TENSORS = ("pos_embed", "relative_position_bias_table")  # suffixes; their shapes follow the image or window size
PATCH_KERNEL = "backbone.patch_embed.proj.weight"  # its shape follows the patch size
CLASS_TOKEN_BIASES = 3  # BEiT: rows of a relative position bias table for the class token, after those for pairs of patches
SHARED_BIAS = "backbone.rel_pos_bias.relative_position_bias_table"  # BEiT, pre-training
BLOCK_BIAS = ".attn.rel_pos_bias.relative_position_bias_table"  # BEiT, fine-tuning: suffix of one table for each block

Grid = tuple[int, int]  # number of patches (down, across)


def move_tensors(tensors: State, expected: Mapping[str, Tensor], model: Model | MaskedModel) -> State:
    """Renames the tensors that a network of another use holds under other names.

    These are the last norm (`backbone.norm` or `backbone.pooling.norm`), and the relative position
    bias of BEiT: if the file has one table for all blocks and the network one for each block, every
    block gets it. `expected`: the state dict of `model`.
    """
    moved = dict(tensors)
    norms = [("backbone.norm.", "backbone.pooling.norm."), ("backbone.pooling.norm.", "backbone.norm.")]
    # The norm of PoolNorm is another one: it normalizes the mean of the patches, not the tokens.
    if not isinstance(model.backbone.pooling, PoolNorm):
        for new, old in norms:
            if f"{new}weight" in expected and f"{new}weight" not in tensors and f"{old}weight" in tensors:
                moved = {(new + name.removeprefix(old) if name.startswith(old) else name): x for name, x in moved.items()}
    if SHARED_BIAS in moved and SHARED_BIAS not in expected:
        table = moved.pop(SHARED_BIAS)
        moved |= dict.fromkeys((name for name in expected if name.endswith(BLOCK_BIAS)), table)
    return moved


def resize_to(tensor: Tensor, expected: Tensor, model: Model | MaskedModel, file: WeightFile) -> Tensor | None:
    """Resizes a position embedding or relative position bias table of a file to the grid or window of a network.

    The kernel of a patch embedding is resized to the patch size of the network.

    `tensor`: (1, extra + h * w, D), ((2h - 1)(2w - 1) + extra, heads), or (D, C, P, P). `expected`: the
    tensor of the network. Returns `tensor` itself if the size is the same, and None if the grid of the
    file is unknown.
    """
    if tensor.ndim == 4:
        same_width = tensor.shape[:2] == expected.shape[:2]
        return resize_patch_kernel(tensor, expected.shape[-1]) if same_width else None
    if tensor.ndim != expected.ndim or tensor.shape[-1] != expected.shape[-1]:
        return None
    relative, grid = tensor.ndim == 2, _grid_of_model(model)
    if grid is None:
        return _resize_windows(tensor, expected) if relative else None
    extra = CLASS_TOKEN_BIASES if relative else expected.shape[1] - grid[0] * grid[1]
    file_grid = _grid_of_tensor(tensor, extra, grid, model, file)
    if file_grid is None:
        return None
    return resize_relative_positions(tensor, file_grid, grid) if relative else resize_positions(tensor, file_grid, grid)


def _resize_windows(table: Tensor, expected: Tensor) -> Tensor | None:
    """Resizes a relative position bias table of square windows (Swin). None if the windows of `table` are not square."""
    old, new = ((math.isqrt(len(x)) + 1) // 2 for x in (table, expected))
    return resize_relative_positions(table, (old, old), (new, new)) if (2 * old - 1) ** 2 == len(table) else None


def _grid_of_model(model: Model | MaskedModel) -> Grid | None:
    masked_grid: Grid | None = getattr(model, "grid", None)
    return masked_grid or model.backbone.spec.grid


def _patch_size_of_file(model: Model | MaskedModel, file: WeightFile) -> int | None:
    """The patch size in pixels that the weights were trained for. None for networks without patches."""
    kernel, own = (tensors.get(PATCH_KERNEL) for tensors in (file.tensors, model.state_dict()))
    if model.patch_size is None or kernel is None or own is None or kernel.ndim != 4:
        return model.patch_size
    return model.patch_size * kernel.shape[-1] // own.shape[-1]


def _grid_of_tensor(tensor: Tensor, extra: int, model_grid: Grid, model: Model | MaskedModel, file: WeightFile) -> Grid | None:
    """The grid that a position tensor was trained for. None if it is unknown.

    It follows from the image size in the file's configuration. Without one, it is the network's own
    grid for files of spine, else a square.
    """
    relative = tensor.ndim == 2
    length = tensor.shape[0 if relative else 1]

    def fits(grid: Grid) -> bool:
        positions = (2 * grid[0] - 1) * (2 * grid[1] - 1) if relative else grid[0] * grid[1]
        return positions + extra == length

    size, patch = settings_of_config(file.config).image_size, _patch_size_of_file(model, file)
    if size is not None and patch is not None:
        grid = (-(-size[0] // patch), -(-size[1] // patch))  # dense tasks pad images to whole patches
        if fits(grid):
            return grid
    if file.layout is SPINE_LAYOUT and fits(model_grid):
        return model_grid
    count = max(length - extra, 0)
    side = (math.isqrt(count) + 1) // 2 if relative else math.isqrt(count)
    return (side, side) if side > 0 and fits((side, side)) else None
