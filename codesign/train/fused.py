# SPDX-License-Identifier: Apache-2.0
"""The same values and gradients as Brevitas' activation quantizers, in fewer passes over memory; used in training only.

On two cores a quantized step is bound by memory: Brevitas' chain of a dozen element-wise operations per quantizer takes
twice as long as the network itself. Evaluation and export run Brevitas' own modules; a test holds both equal.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def fake_quant(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """clamp(round(x / scale), low, high) * scale, of x's shape; `scale` is a scalar and gets a gradient."""
    out: Tensor = FakeQuant.apply(x, scale, low, high)  # type: ignore[no-untyped-call]
    return out


def fake_quant_attention(q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> Tensor:
    """Attention with quantized, unnormalised probabilities; q, k, v and result [batch, heads, tokens, head_dim]."""
    out: Tensor = FakeQuantAttention.apply(q, k, v, scale)  # type: ignore[no-untyped-call]
    return out


class FakeQuant(torch.autograd.Function):
    """Straight-through inside the range; the scale's gradient is that of learned step size (Esser et al. 2020)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        """Values."""
        ctx.save_for_backward(x, scale)
        ctx.range = (low, high)
        return (x / scale).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """Gradients of the inputs."""
        x, scale = ctx.saved_tensors
        low, high = ctx.range
        steps = x / scale
        rounded = steps.round()
        integer = rounded.clamp(low, high)
        inside = rounded.eq_(integer)
        grad_x = grad * inside
        if not ctx.needs_input_grad[1]:
            return grad_x, None, None, None
        grad_scale = torch.dot(grad.flatten(), integer.addcmul_(steps, inside, value=-1.0).flatten())
        return grad_x, grad_scale.view(scale.shape), None, None


class FakeQuantAttention(torch.autograd.Function):
    """Keeps exponentials instead of a dozen tensors of their size; rounding is straight-through."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: Tensor) -> Tensor:
        """Values."""
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        exps = scores.sub_(scores.amax(dim=-1, keepdim=True)).exp_()
        quantized = (exps / scale).round_().mul_(scale)  # exp never exceeds 1, so nothing saturates
        total = quantized.sum(dim=-1, keepdim=True)
        out = (quantized @ v) / total
        ctx.save_for_backward(q, k, v, exps, quantized, total, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of the inputs."""
        q, k, v, exps, quantized, total, out = ctx.saved_tensors
        scaled = grad / total
        grad_v = quantized.transpose(-2, -1) @ scaled
        grad_p = (scaled @ v.transpose(-2, -1)).sub_((scaled * out).sum(dim=-1, keepdim=True))
        grad_s = grad_p.mul_(exps).div_(math.sqrt(q.shape[-1]))
        return grad_s @ k, grad_s.transpose(-2, -1) @ q, grad_v, None
