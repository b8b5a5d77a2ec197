"""Discrete VAE: the image tokenizer of DALL-E (Ramesh et al., ICML 2021, arXiv 2102.12092, appendix A).

BEiT predicts its tokens (Bao et al., ICLR 2022, arXiv 2106.08254, section 2.1). The encoder maps an image to logits over a
vocabulary of codes, one position for each 8x8 pixels; the decoder maps codes to the parameters of a distribution of pixels. The
published networks are the variant `dalle`. Pixels are in 0..1, not normalized.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.errors import InputError, nearest

STRIDE = 8  # pixels per code, down and across
EPS = 0.1  # of map_pixels


@dataclass(frozen=True)
class DVAEVariant:
    """Hyperparameters of a discrete VAE."""

    codes: int  # size of the vocabulary
    width: int  # channels of the first group of the encoder; the groups have 1, 2, 4 and 8 times as many
    decoder_input: int  # channels of the first layer of the decoder
    blocks: int  # residual blocks in a group


VARIANTS = {
    "small": DVAEVariant(codes=512, width=32, decoder_input=64, blocks=2),  # for one CPU
    "dalle": DVAEVariant(codes=8192, width=256, decoder_input=128, blocks=2),
}


def map_pixels(image: Tensor) -> Tensor:
    """Maps pixels from 0..1 to EPS..1 - EPS, so that their logit is finite (DALL-E, appendix A.3)."""
    return (1 - 2 * EPS) * image + EPS


def unmap_pixels(pixels: Tensor) -> Tensor:
    """The inverse of `map_pixels`, limited to 0..1."""
    return ((pixels - EPS) / (1 - 2 * EPS)).clamp(0, 1)


def conv(channels_in: int, channels_out: int, kernel: int) -> nn.Conv2d:
    """A convolution that keeps the size. Weights are normal with variance 1 / fan_in, biases zero."""
    layer = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(channels_in * kernel**2))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """A bottleneck of four convolutions, each after a ReLU, added to the input with the factor `gain`."""

    def __init__(self, channels_in: int, channels_out: int, kernels: tuple[int, int, int, int], gain: float):
        """`kernels`: sizes of the convolutions."""
        super().__init__()
        hidden = channels_out // 4
        widths = (channels_in, hidden, hidden, hidden, channels_out)
        layers: list[tuple[str, nn.Module]] = []
        for i, kernel in enumerate(kernels, 1):
            layers += [(f"relu_{i}", nn.ReLU()), (f"conv_{i}", conv(widths[i - 1], widths[i], kernel))]
        self.id_path = conv(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        self.res_path = nn.Sequential(OrderedDict(layers))
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, h, w)."""
        return self.id_path(x) + self.gain * self.res_path(x)


def make_groups(
    widths: tuple[int, ...], blocks: int, kernels: tuple[int, int, int, int], resize: tuple[str, type[nn.Module]]
) -> list[tuple[str, nn.Module]]:
    """Four groups of blocks. All but the last end with a layer that changes the size.

    `widths`: input channels, then the channels of each group. `resize`: name and class of the layer, which gets the factor 2.
    """
    groups: list[tuple[str, nn.Module]] = []
    gain = 1 / ((len(widths) - 1) * blocks) ** 2
    for i, (before, width) in enumerate(pairwise(widths), 1):
        layers: list[tuple[str, nn.Module]] = [
            (f"block_{j}", Block(before if j == 1 else width, width, kernels, gain)) for j in range(1, blocks + 1)
        ]
        if i < len(widths) - 1:
            name, layer = resize
            layers.append((name, layer(**{"kernel_size" if layer is nn.MaxPool2d else "scale_factor": 2})))
        groups.append((f"group_{i}", nn.Sequential(OrderedDict(layers))))
    return groups


class Encoder(nn.Module):
    """Image (B, 3, H, W), mapped by `map_pixels` -> logits of codes (B, codes, H / 8, W / 8)."""

    def __init__(self, variant: DVAEVariant):
        super().__init__()
        width = variant.width
        groups = make_groups(
            (width, width, 2 * width, 4 * width, 8 * width), variant.blocks, (3, 3, 3, 1), ("pool", nn.MaxPool2d)
        )
        output = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=conv(8 * width, variant.codes, 1)))
        self.blocks = nn.Sequential(OrderedDict([("input", conv(3, width, 7)), *groups, ("output", output)]))

    def forward(self, image: Tensor) -> Tensor:
        """Returns the logits."""
        return self.blocks(image)


class Decoder(nn.Module):
    """One-hot codes, or their probabilities, (B, codes, h, w) -> (B, 6, 8 h, 8 w).

    The output holds, for each color, the mean and the logarithm of the scale of a logit-Laplace distribution.
    """

    def __init__(self, variant: DVAEVariant):
        super().__init__()
        width = variant.width
        widths = (variant.decoder_input, 8 * width, 4 * width, 2 * width, width)
        groups = make_groups(widths, variant.blocks, (1, 3, 3, 3), ("upsample", nn.Upsample))
        output = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=conv(width, 6, 1)))
        self.blocks = nn.Sequential(
            OrderedDict([("input", conv(variant.codes, variant.decoder_input, 1)), *groups, ("output", output)])
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Returns means (channels 0 to 2) and logarithms of scales (channels 3 to 5)."""
        return self.blocks(codes)


class DiscreteVAE(nn.Module):
    """Encoder and decoder. The decoder may be missing in published files; such a tokenizer only encodes."""

    stride = STRIDE

    def __init__(self, variant: str = "small", decoder: bool = True):
        """Raises InputError if the variant is unknown."""
        super().__init__()
        if variant not in VARIANTS:
            raise InputError(
                f"Unknown variant '{variant}' of dvae.{nearest(variant, list(VARIANTS))} Choices: {', '.join(VARIANTS)}."
            )
        self.variant, self.num_codes = variant, VARIANTS[variant].codes
        self.encoder = Encoder(VARIANTS[variant])
        self.decoder = Decoder(VARIANTS[variant]) if decoder else None

    def forward(self, image: Tensor) -> Tensor:
        """Pixels in 0..1 (B, 3, H, W) -> logits of codes (B, codes, H / 8, W / 8)."""
        return self.encoder(map_pixels(image))

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Pixels in 0..1 (B, 3, H, W) -> the most probable code of each position (B, H / 8 * W / 8), in raster order."""
        return self(image).argmax(1).flatten(1)

    def decode(self, codes: Tensor) -> Tensor:
        """One-hot codes or probabilities (B, codes, h, w) -> the expected pixels in 0..1 (B, 3, 8 h, 8 w).

        Raises InputError if there is no decoder.
        """
        if self.decoder is None:
            raise InputError(
                "This tokenizer has no decoder, which drawing its tokens needs. Give the file of the decoder as well."
            )
        return unmap_pixels(self.decoder(codes)[:, :3].sigmoid())

    def decode_tokens(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens (B, N) int64 in raster order -> pixels in 0..1 (B, 3, 8 h, 8 w). `grid`: (h, w), with N = h * w."""
        one_hot = F.one_hot(tokens, self.num_codes).movedim(-1, 1).float()  # (B, codes, N)
        return self.decode(one_hot.unflatten(2, grid))
