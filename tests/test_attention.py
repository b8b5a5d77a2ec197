"""Attention has the same values and gradients, however it is computed."""

import pytest
import torch
import torch.nn.functional as F

from spine.layers import transformer
from spine.layers.transformer import LONGEST_EXPLICIT, attention


def gradients_of(function, dtype, bias=None, tokens=9):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, tokens, 8, generator=generator).to(dtype).requires_grad_() for _ in range(3))
    out = function(q, k, v, bias)
    return out.detach(), *torch.autograd.grad(out.float().square().sum(), (q, k, v))


def fused(q, k, v, bias):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


@pytest.mark.parametrize("with_bias", [False, True])
def test_bfloat16_on_a_cpu_differs_from_the_fused_kernel_by_rounding_only(with_bias):
    bias = torch.randn(3, 9, 9, generator=torch.Generator().manual_seed(1)).bfloat16() if with_bias else None
    exact = gradients_of(fused, torch.float64, None if bias is None else bias.double())
    error, fused_error = (
        [float((value.double() - true).norm() / true.norm()) for value, true in zip(found, exact, strict=True)]
        for found in (gradients_of(attention, torch.bfloat16, bias), gradients_of(fused, torch.bfloat16, bias))
    )
    assert all(own < 2 * other + 2**-8 for own, other in zip(error, fused_error, strict=True))


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
