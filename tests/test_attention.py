"""Attention has the same values and gradients, however it is computed."""

import pytest
import torch
import torch.nn.functional as F

from spine.layers import transformer
from spine.layers.transformer import LONGEST_EXPLICIT, attention


def fused(q, k, v, bias):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def output_and_gradients(function, dtype, bias):
    """The same numbers, which bfloat16 represents, in `dtype`."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 8, generator=generator).bfloat16().to(dtype).requires_grad_() for _ in range(3))
    out = function(q, k, v, None if bias is None else bias.to(dtype))
    return out.detach(), *torch.autograd.grad(out.double().square().sum(), (q, k, v))


def errors(function, dtype, bias):
    """Of the output and of the gradients, relative to float64."""
    pairs = zip(output_and_gradients(function, dtype, bias), output_and_gradients(fused, torch.float64, bias), strict=True)
    return [float((found.double() - true).norm() / true.norm()) for found, true in pairs]


@pytest.mark.parametrize("with_bias", [False, True])
def test_bfloat16_on_a_cpu_differs_from_the_fused_kernel_by_rounding_only(with_bias):
    bias = torch.randn(3, 9, 9, generator=torch.Generator().manual_seed(1)).bfloat16() if with_bias else None
    ours, theirs = (errors(function, torch.bfloat16, bias) for function in (attention, fused))
    assert all(own < other + 2**-7 for own, other in zip(ours, theirs, strict=True))  # bfloat16 rounds by up to 2**-8


@pytest.mark.parametrize("with_bias", [False, True])
def test_float64_equals_the_fused_kernel(with_bias):
    bias = torch.randn(3, 9, 9, generator=torch.Generator().manual_seed(1)).requires_grad_() if with_bias else None
    assert max(errors(attention, torch.float64, bias)) < 1e-14


@pytest.mark.parametrize(
    ("dtype", "tokens", "training", "explicit"),
    [
        (torch.bfloat16, 9, True, True),
        (torch.bfloat16, 9, False, False),
        (torch.bfloat16, LONGEST_EXPLICIT + 1, True, False),
        (torch.float32, 9, True, False),
    ],
)
def test_the_fused_kernel_is_left_out_only_where_it_is_slow(monkeypatch, dtype, tokens, training, explicit):
    calls = []
    monkeypatch.setattr(transformer.F, "scaled_dot_product_attention", lambda q, *_, **__: calls.append(1) or q)
    q = torch.zeros(1, 1, tokens, 8, dtype=dtype, requires_grad=training)
    attention(q, q, q)
    assert bool(calls) is not explicit
