# SPDX-License-Identifier: Apache-2.0
"""How router and experts appear in an exported graph: one node each, in the project's own domain.

The float reference that executes these nodes is `codesign.frontend.qonnx_ops`; the domain is that module's name, which
is how qonnx finds it. The forward passes here only give the tracer values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

DOMAIN = "codesign.frontend.qonnx_ops"


@dataclass(frozen=True)
class HiddenQuant:
    """Signed symmetric quantization of the experts' hidden activation."""

    scale: float
    bit_width: int
    narrow: bool

    def __call__(self, x: Tensor) -> Tensor:
        """Round half to even, saturate, scale back."""
        top = 2 ** (self.bit_width - 1) - 1
        low = -top if self.narrow else -top - 1
        return (x / self.scale).round().clamp(low, top) * self.scale


def router(x: Tensor, weight: Tensor, bias: Tensor, top_k: int) -> Tensor:
    """Gates [batch, tokens, experts] of tokens [batch, tokens, dim] as one node."""
    gates: Tensor = Router.apply(x, weight, bias, top_k)  # type: ignore[no-untyped-call]
    return gates


def experts(x: Tensor, gates: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, quant: HiddenQuant) -> Tensor:
    """Gated sum of the experts [batch, tokens, dim] as one node."""
    y: Tensor = Experts.apply(x, gates, w1, b1, w2, b2, quant)  # type: ignore[no-untyped-call]
    return y


class Router(torch.autograd.Function):
    """Gates [..., experts] of tokens [..., dim]: softmax over all experts, zero outside the top k."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, top_k: int) -> Tensor:
        """Values."""
        gates = F.linear(x, weight, bias).softmax(dim=-1)
        values, picks = gates.topk(top_k, dim=-1)
        return torch.zeros_like(gates).scatter(-1, picks, values)

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, bias: Any, top_k: int) -> Any:
        """The ONNX node."""
        gates = g.op(f"{DOMAIN}::Router", x, weight, bias, top_k_i=top_k)
        sizes = x.type().sizes()
        gates.setType(x.type().with_sizes([*sizes[:-1], bias.type().sizes()[0]]))
        return gates


class Experts(torch.autograd.Function):
    """y = sum over experts e of gate_e * (w2_e . quant(gelu(w1_e . x + b1_e)) + b2_e)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gates: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, quant: HiddenQuant
    ) -> Tensor:
        """Values."""
        hidden = quant(F.gelu(torch.einsum("btd,ehd->bteh", x, w1) + b1))
        return torch.einsum("bteh,edh,bte->btd", hidden, w2, gates) + gates @ b2

    @staticmethod
    def symbolic(g: Any, x: Any, gates: Any, w1: Any, b1: Any, w2: Any, b2: Any, quant: HiddenQuant) -> Any:
        """The ONNX node."""
        y = g.op(
            f"{DOMAIN}::Experts", x, gates, w1, b1, w2, b2,
            hidden_scale_f=quant.scale, hidden_bit_width_i=quant.bit_width,
            hidden_signed_i=1, hidden_narrow_i=int(quant.narrow),
        )  # fmt: skip
        y.setType(x.type())
        return y
