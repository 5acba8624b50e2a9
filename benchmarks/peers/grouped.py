# SPDX-License-Identifier: Apache-2.0
"""The approach of vLLM's fused_moe (github.com/vllm-project/vllm), in a few lines of our own: bf16, sorted tokens.

Pairs of token and expert are sorted by expert and cut into blocks; one kernel multiplies every block with its
expert's weights, gathering the tokens' rows. fc1, SiLU and product in torch, fc2 with the gates, sum. Triton's
interpreter has no products of bf16: there it runs, with wrong numbers (in float32 they are right).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def grouped_bf16(
    x, tokens, w, blocks, y, inputs, outputs,
    gather: tl.constexpr, tile: tl.constexpr, outs: tl.constexpr, ins: tl.constexpr,
):  # fmt: skip
    """y[p] = w[expert] . x[tokens[p]] (`gather`) or x[p] for a block's pairs; w bf16 [experts, outputs, inputs]."""
    entry = blocks + tl.program_id(0) * 4
    count = tl.load(entry + 2)
    if count == 0:
        return
    lane = tl.arange(0, tile)
    live = lane < count
    pair = tl.where(live, tl.load(entry + 1) + lane, 0).to(tl.int64)
    row = tl.load(tokens + pair).to(tl.int64) if gather else pair
    n = tl.program_id(1) * outs + tl.arange(0, outs)
    here = (n < outputs)[None, :]
    base = w + tl.load(entry).to(tl.int64) * outputs * inputs
    acc = tl.zeros([tile, outs], tl.float32)
    for start in range(0, inputs, ins):
        k = start + tl.arange(0, ins)
        a = tl.load(x + row[:, None] * inputs + k[None, :], mask=live[:, None] & (k < inputs)[None, :], other=0.0)
        b = tl.load(base + n[None, :] * inputs + k[:, None], mask=here & (k < inputs)[:, None], other=0.0)
        acc = tl.dot(a, b, acc)
    at = pair[:, None] * outputs + n[None, :]
    tl.store(y + at, acc.to(y.dtype.element_ty), mask=live[:, None] & here)


@dataclass(frozen=True)
class FloatExperts:
    """w1 bf16 [E, 2 H, D] (gates, then values), w2 bf16 [E, D, H]."""

    w1: torch.Tensor
    w2: torch.Tensor

    def sorted_blocks(self, x: torch.Tensor, pairs: Any) -> torch.Tensor:
        """The layer [T, D] with the grouped kernel, of pairs sorted already (`codesign.kernels.gpu.ops.Pairs`)."""
        u = self._product(x, self.w1, pairs, gather=True)
        o = self._product(self._activate(u), self.w2, pairs, gather=False)
        y = torch.zeros_like(x)
        return y.index_add_(0, pairs.tokens.long(), o * self._gates(pairs)[:, None])

    def matmul_per_expert(self, x: torch.Tensor, rows: list[tuple[int, torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """With one product of torch after the other; `rows`: expert, tokens and gates, known beforehand."""
        y = torch.zeros_like(x)
        for expert, tokens, gates in rows:
            h = self._activate(x[tokens] @ self.w1[expert].T)
            y.index_add_(0, tokens, (h @ self.w2[expert].T) * gates[:, None])
        return y

    def batched(self, x: torch.Tensor, rows: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """With torch.bmm over all experts; rows [E, most] and gates [E, most] padded with gate 0."""
        h = self._activate(torch.bmm(x[rows], self.w1.transpose(1, 2)))
        o = torch.bmm(h, self.w2.transpose(1, 2)) * gates[:, :, None]
        return torch.zeros_like(x).index_add_(0, rows.reshape(-1), o.reshape(-1, x.shape[1]))

    @staticmethod
    def _activate(u: torch.Tensor) -> torch.Tensor:
        gate, value = u.chunk(2, dim=-1)
        return torch.nn.functional.silu(gate) * value

    @staticmethod
    def _gates(pairs: Any) -> torch.Tensor:
        return (pairs.gates / 32768).to(torch.bfloat16)

    @staticmethod
    def _product(x: torch.Tensor, w: torch.Tensor, pairs: Any, gather: bool) -> torch.Tensor:
        outputs, inputs = w.shape[1:]
        y = torch.empty((len(pairs.tokens), outputs), dtype=x.dtype, device=x.device)
        grid = len(pairs.blocks), triton.cdiv(outputs, 64)
        grouped_bf16[grid](
            x, pairs.tokens, w, pairs.blocks, y, inputs, outputs, gather=gather, tile=pairs.tile, outs=64, ins=64
        )
        return y
