"""A trained tokenizer whose tokens are the targets of a pre-training."""

from __future__ import annotations

import hashlib
from functools import cached_property

import torch
from torch import Tensor

from spine.tokenizers.dvae import DiscreteVAE


class FrozenTokenizer:
    """Images -> tokens, without gradients, in evaluation mode and in the precision of the tokenizer's weights.

    It is not an `nn.Module`: a task that has one does not train it, convert it to the precision of the run, or save it in
    checkpoints. It moves itself to the device of the images.
    """

    def __init__(self, network: DiscreteVAE):
        """`network`: changed in place to evaluation mode, without gradients."""
        self.network = network.eval().requires_grad_(False)
        self.num_codes, self.stride = network.num_codes, network.stride

    @property
    def has_decoder(self) -> bool:
        """Whether tokens can be decoded. Published files may hold the encoder alone."""
        return self.network.decoder is not None

    @cached_property
    def sha256(self) -> str:
        """A hash of the encoder, which determines the tokens: 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.encoder.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.float().cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def image_size(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Returns height and width of the images that have a grid of tokens (down, across)."""
        return grid[0] * self.stride, grid[1] * self.stride

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Images (B, 3, h, w) uint8 -> tokens (B, N) in raster order, of 0 to `num_codes` - 1."""
        weight = next(self.network.parameters())
        if weight.device != image.device:
            with torch.inference_mode(False):  # the weights are used in training too
                self.network.to(image.device)
        with torch.autocast(image.device.type, enabled=False):
            return self.network.encode(image.to(weight.dtype) / 255)

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens (B, N) on any device -> the pixels that they stand for (B, 3, h, w), in 0..1 on the CPU.

        Raises InputError if there is no decoder.
        """
        device = next(self.network.parameters()).device
        return self.network.decode_tokens(tokens.to(device), grid).float().cpu()
