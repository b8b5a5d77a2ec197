"""Random patch masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomPatchMask:
    """Masks a random subset of the patches of an image (MAE, section 3): a generator -> patch_mask (N,), True = masked."""

    num_patches: int  # N
    mask_ratio: float  # fraction of masked patches

    def __call__(self, rng: np.random.Generator) -> Tensor:
        """A patch_mask (N,) bool. int(N * (1 - mask_ratio)) patches are visible, at least one."""
        masked = np.ones(self.num_patches, bool)
        visible = max(1, int(self.num_patches * (1 - self.mask_ratio)))
        masked[rng.permutation(self.num_patches)[:visible]] = False
        return torch.from_numpy(masked)
