"""Focal loss (Lin et al., arXiv 1708.02002). An example of a loss in a plug-in."""

import torch.nn.functional as F
from torch import Tensor, nn


class FocalLoss(nn.Module):
    """Cross entropy in which well classified samples count less, for classification and segmentation (255 is ignored)."""

    def __init__(self, gamma: float = 2.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B, classes, ...) and class indices (B, ...) -> ()."""
        entropy = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
        return ((1 - (-entropy).exp()) ** self.gamma * entropy)[target != 255].mean()
