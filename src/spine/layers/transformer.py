"""Patch embedding, attention, MLP and block of a plain vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Features
from spine.layers.drop_path import DropPath


def patch_grid(size: Sequence[int], patch_size: int) -> tuple[int, int]:
    """Returns the number of patches down and across an image of `size` (height, width).

    Raises InputError, with the nearest sizes that fit, if a side is not a multiple of `patch_size`.
    """
    height, width = size
    if height % patch_size or width % patch_size:
        whole = {side // patch_size + more for side in (height, width) if side % patch_size for more in (0, 1)}
        sides = sorted({max(count, 1) * patch_size for count in whole})
        raise InputError(
            f"ViT cuts images into {patch_size}x{patch_size} patches; {height}x{width} is not a multiple. "
            f"Nearest sizes that fit: {', '.join(map(str, sides))}. Or set backbone.patch_size to a divisor of both sides."
        )
    return height // patch_size, width // patch_size


class PatchEmbed(nn.Module):
    """One token per patch: a convolution with equal kernel size and stride."""

    def __init__(self, in_chans: int, embed_dim: int, patch_size: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, H / P, W / P)."""
        return self.proj(image)


def resize_patch_kernel(kernel: Tensor, patch_size: int) -> Tensor:
    """Resizes the kernel (D, C, p, p) of a patch embedding to another patch size: (D, C, P, P).

    If the patches of an image are enlarged from p to P pixels, the tokens stay the same. For smaller
    patches they stay as similar as possible, in the sense of least squares (FlexiViT, Beyer et al.,
    arXiv 2212.08013, section 3.4). Patches are resized by bicubic interpolation, as in timm.
    """
    old = kernel.shape[-1]
    if old == patch_size:
        return kernel
    pixels = torch.eye(old * old, dtype=torch.float64, device=kernel.device).view(-1, 1, old, old)
    resized = F.interpolate(pixels, (patch_size, patch_size), mode="bicubic", antialias=True).flatten(1)  # (p * p, P * P)
    values = kernel.double().flatten(2) @ torch.linalg.pinv(resized).T
    return values.unflatten(2, (patch_size, patch_size)).to(kernel.dtype)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al., arXiv 1706.03762)."""

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        if dim % num_heads:
            raise InputError(f"The embedding width {dim} is not a multiple of the number of heads, {num_heads}.")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # each (B, heads, N, D / heads)
        x = attention(q, k, v)
        return self.drop(self.proj(x.transpose(1, 2).reshape(B, N, D)))


LONGEST_EXPLICIT = 512  # tokens: with more of them, the matrix of scores needs too much memory


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns softmax(q k^T / sqrt(d) + bias) v.

    q, k, v: (..., heads, N, d). bias: broadcastable to (..., heads, N, N).
    """
    # no fused kernel off CUDA has a gradient for the bias, and that of the CPU is slow for bfloat16 in its backward pass
    learned_bias = bias is not None and bias.requires_grad and not q.is_cuda
    slow = q.is_cpu and q.dtype == torch.bfloat16 and q.requires_grad and q.shape[-2] <= LONGEST_EXPLICIT
    if learned_bias or slow:
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        return (scores if bias is None else scores.add_(bias)).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))


class MLP(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0, gelu: str = "none"):
        """`gelu`: the approximation of GELU, "none" or "tanh"."""
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU(approximate=gelu)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class TransformerBlock(nn.Module):
    """Attention and MLP, each with a layer norm before it and a residual connection."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        eps: float = 1e-6,
        gelu: str = "none",
    ):
        """`gelu`: the approximation of GELU, "none" or "tanh"."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, dropout)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim, int(dim * mlp_ratio), dropout, gelu)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ClassTokenNorm(nn.Module):
    """Layer norm of the class token."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, features: Features) -> Tensor:
        """Features -> (B, D)."""
        return self.norm(features.cls_token)
