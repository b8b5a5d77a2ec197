"""A backbone and a head for masked pre-training."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Backbone, FeatureSpec, Head, Tokens
from spine.models.network import Network


class MaskedModel(Network):
    """Predicts something for every patch of a masked image: image (B, 3, H, W), patch_mask (B, N) -> (B, N, outputs).

    True in `patch_mask` means masked. There are three kinds of masking. "drop": the backbone encodes only the visible patches (MAE).
    "replace": the backbone puts a mask token in place of each masked patch (BEiT). "pixel", for backbones with neither: masked patches
    are filled with a learned pixel value, and the pixels of the coarsest feature map are the tokens, as in SimMIM (Xie et al.,
    arXiv 2111.09886).
    """

    def __init__(self, backbone: Backbone, head: Head, spec: FeatureSpec, masking: str, in_chans: int = 3):
        """`masking`: drop, replace or pixel. `spec`: the FeatureSpec that the head was built for."""
        super().__init__(backbone, head)
        if spec.patch_size is None or spec.grid is None:
            raise InputError("A masked network needs a FeatureSpec with patch_size and grid.")
        self.masking = masking
        self.patch_size: int = spec.patch_size
        self.grid: tuple[int, int] = spec.grid  # patches down and across
        self.mask_pixel = nn.Parameter(torch.zeros(1, in_chans, 1, 1)) if masking == "pixel" else None

    @staticmethod
    def mask_pixel_spec(spec: FeatureSpec, image_size: tuple[int, int]) -> FeatureSpec:
        """The FeatureSpec for masking "pixel": each pixel of the coarsest map is a patch.

        Raises InputError if `image_size` (height, width) is not a multiple of the stride of that map.
        """
        channels, stride = spec.levels[-1]
        if image_size[0] % stride or image_size[1] % stride:
            near = [max(side // stride, 1) * stride for side in image_size]
            raise InputError(
                f"Masked patches are {stride} pixels wide for this backbone; the image size {image_size[0]}x{image_size[1]} is "
                f"not a multiple. Choose one, such as {near[0]}x{near[1]}."
            )
        grid = (image_size[0] // stride, image_size[1] // stride)
        return dataclasses.replace(spec, embed_dim=channels, patch_size=stride, grid=grid, masking=frozenset({"replace"}))

    def forward(self, image: Tensor, patch_mask: Tensor, masked_only: bool = False) -> Tensor:
        """(B, 3, H, W), (B, N) -> (B, N, P * P * 3) for MAE, (B, N, visual tokens) for BEiT.

        `masked_only`: the outputs (M, ...) of the M masked patches of the batch alone, in raster order; those of the others are not
        computed.
        """
        if self.mask_pixel is None:
            tokens = self.backbone.forward_masked(image, patch_mask, self.masking)
        else:
            tokens = Tokens(self.backbone(self.fill(image, patch_mask)).maps[-1].flatten(2).transpose(1, 2))
        return self.head(tokens, patch_mask, masked_only=True) if masked_only else self.head(tokens, patch_mask)

    def fill(self, image: Tensor, patch_mask: Tensor) -> Tensor:
        """Fills the masked patches of images (B, 3, H, W) with the learned pixel value, or with zeros if there is none."""
        masked = patch_mask.view(-1, 1, image.shape[-2] // self.patch_size, image.shape[-1] // self.patch_size).to(image.dtype)
        masked = F.interpolate(masked, image.shape[-2:], mode="nearest")
        pixel = 0.0 if self.mask_pixel is None else self.mask_pixel.to(image.dtype)
        return image * (1.0 - masked) + pixel * masked
