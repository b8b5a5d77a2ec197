"""Networks with a smaller output stride: the last stages are dilated instead of downsampling (DeepLab, arXiv 1412.7062)."""

from __future__ import annotations

from collections.abc import Sequence

from spine.errors import InputError


def dilate(strides: Sequence[int], output_stride: int, *, start: int = 2, inclusive: bool = False) -> list[tuple[int, int]]:
    """Returns stride and dilation of each block so that the stride of the last map is at most `output_stride`.

    A block that would exceed it gets stride 1, and the blocks after it are dilated by its former
    stride: they compute what they did before, at more positions (TF-slim, DeepLab). `inclusive`: the
    block itself is dilated too (torchvision, OpenMMLab). `start`: the stride before the first block.
    Raises InputError if `output_stride` is not 8, 16 or 32.
    """
    if output_stride not in (8, 16, 32):
        raise InputError(f"output_stride is {output_stride}; choose 8, 16 or 32.")
    found, total, dilation = [], start, 1
    for stride in strides:
        before = dilation
        if total * stride > output_stride:
            stride, dilation = 1, dilation * stride
        total *= stride
        found.append((stride, dilation if inclusive else before))
    return found
