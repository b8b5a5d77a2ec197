"""LR-ASPP, the segmentation decoder of MobileNetV3 (Howard et al., arXiv 1905.02244, section 6.4, figure 10).

The coarse map is weighted by its global context, like in squeeze-and-excitation, and classified
together with a finer map. As in torchvision, which averages over the whole map; the authors pool
windows of 49x49 positions with large strides: `windows=True`.

OpenMMLab's LRASPPHead joins two finer maps with the coarse one, and convolves after each:
`branch_channels=[32,64] windows=True`, with the maps of strides 2, 4 and 8.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Features, FeatureSpec, Head
from spine.layers.conv import conv_norm_act, resize_map, set_batch_norm
from spine.layers.initialization import dense_head_init
from spine.layers.pyramid import pyramid_for
from spine.task_spec import HeadInput

WINDOW, WINDOW_STRIDES = 49, (16, 20)  # positions of the coarse map; section 6.4 of the paper


class LRASPP(Head):
    """Sum of the classifiers of a fine map and of the coarse map, which is weighted by its context.

    With `branch_channels`: one classifier of the coarse map, after finer maps were joined to it.
    """

    reads: ClassVar[HeadInput] = "maps"
    levels: ClassVar[tuple[int, ...] | None] = (1, -1)

    def __init__(
        self,
        spec: FeatureSpec,
        num_outputs: int,
        *,
        channels: int = 128,
        branch_channels: tuple[int, ...] | None = None,
        windows: bool = False,
        norm_eps: float = 1e-5,
    ):
        """`branch_channels`: to which the finer maps are projected before they are joined; None for the sum of two classifiers.

        `windows`: the context is that of windows of the coarse map, not of the whole map. `norm_eps`: of
        batch norms.
        """
        super().__init__()
        count = 2 if branch_channels is None else len(branch_channels) + 1
        if len(spec.levels) != count:
            wanted, levels = "two maps, a fine and a coarse one", "1,3"
            if branch_channels is not None:
                wanted = f"a map for each of head.branch_channels={list(branch_channels)} and a coarse one"
                levels = ",".join(map(str, range(4 - count, 4)))
            raise InputError(f"Head 'lraspp' reads {wanted}, not {len(spec.levels)}. Use head.levels=[{levels}].")
        self.windows = windows
        self.pyramid, (*finer, coarse) = pyramid_for(spec, (2, 1) if count == 2 else None)
        self.conv = conv_norm_act(coarse.channels, channels, 1)
        self.scale = nn.Conv2d(coarse.channels, channels, 1, bias=False)
        self.high_classifier = nn.Conv2d(channels, num_outputs, 1)
        self.low_classifier: nn.Module | None = None
        if branch_channels is None:
            self.low_classifier = nn.Conv2d(finer[0].channels, num_outputs, 1)
        else:
            self.coarse = nn.Conv2d(channels, channels, 1)
            pairs = list(zip(finer, branch_channels, strict=True))
            self.branches = nn.ModuleList(nn.Conv2d(level.channels, width, 1, bias=False) for level, width in pairs)
            self.joins = nn.ModuleList(conv_norm_act(channels + width, channels, 1) for width in branch_channels)
        classifiers = (self.low_classifier, self.high_classifier)
        dense_head_init(self, *(classifier for classifier in classifiers if classifier is not None))
        set_batch_norm(self, norm_eps)

    def forward(self, features: Features) -> Tensor:
        """Features -> logits (B, classes, h, w) at the stride of the finest map."""
        *finer, coarse = features.maps if self.pyramid is None else self.pyramid(features.maps)
        x = self.conv(coarse) * resize_map(self.scale(self._context(coarse)).sigmoid(), coarse.shape[-2:])
        if self.low_classifier is not None:
            return self.low_classifier(finer[0]) + self.high_classifier(resize_map(x, finer[0].shape[-2:]))
        x = self.coarse(x)
        for fine, branch, join in reversed(list(zip(finer, self.branches, self.joins, strict=True))):
            x = join(torch.cat([resize_map(x, fine.shape[-2:]), branch(fine)], dim=1))
        return self.high_classifier(x)

    def _context(self, coarse: Tensor) -> Tensor:
        """Averages (B, C, h', w') over windows, which are no larger than the map, or (B, C, 1, 1) over the whole map."""
        if not self.windows:
            return coarse.mean((2, 3), keepdim=True)
        height, width = (min(side, WINDOW) for side in coarse.shape[-2:])
        return F.avg_pool2d(coarse, (height, width), WINDOW_STRIDES)
