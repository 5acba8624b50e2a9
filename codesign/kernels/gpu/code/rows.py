# SPDX-License-Identifier: Apache-2.0
"""Operators row by row: norm, gates, GELU, ADD, the activation of gated experts. `tile` rows a program."""

import triton
import triton.language as tl

from codesign.kernels.gpu.code import integers as f


@triton.jit(do_not_specialize=["rows", "shift"])
def norm(x, gain, bias, table, y, rows, width, shift, tile: tl.constexpr, columns: tl.constexpr):
    """NORM: x int16 [rows, width] to y int8; `columns` >= width, a power of two."""
    t = tl.program_id(0) * tile + tl.arange(0, tile)
    d = tl.arange(0, columns)
    live = (t < rows)[:, None] & (d < width)[None, :]
    at = t.to(tl.int64)[:, None] * width + d[None, :]
    v = tl.load(x + at, mask=live, other=0).to(tl.int64)
    total = tl.sum(v, 1)
    variance = width * tl.sum(v * v, 1) - total * total
    r, e = f.rsqrt(tl.maximum(variance, 1), table)
    n = f.sat16(f.shift_round((width * v - total[:, None]) * r[:, None], (12 + e)[:, None]))
    n = tl.where((variance > 0)[:, None], n, 0)
    scaled = n.to(tl.int64) * tl.load(gain + d, mask=d < width, other=0).to(tl.int64)[None, :]
    scaled += tl.load(bias + d, mask=d < width, other=0).to(tl.int64)[None, :]
    by = tl.full([1, 1], 0, tl.int64) + shift
    tl.store(y + at, f.sat8(f.shift_round(scaled, by)).to(tl.int8), mask=live)


@triton.jit(do_not_specialize=["rows", "chosen"])
def gates(t, exp2, recip, y, rows, experts, chosen, tile: tl.constexpr, columns: tl.constexpr):
    """Logits int16 [rows, experts] to gates int32: the `chosen` largest, the lower index first on a tie, else 0."""
    row = tl.program_id(0) * tile + tl.arange(0, tile)
    e = tl.arange(0, columns)
    here = (e < experts)[None, :]
    live = (row < rows)[:, None] & here
    at = row.to(tl.int64)[:, None] * experts + e[None, :]
    logit = tl.load(t + at, mask=live, other=-32768).to(tl.int32)
    x = tl.where(here, f.exp2_fixed(tl.max(logit, 1)[:, None] - logit, exp2), 0).to(tl.int64)
    r, k = f.reciprocal(tl.sum(x, 1), recip)
    gate = f.shift_round(x * r[:, None], (15 + k)[:, None]).to(tl.int32)
    least = -(1 << 30)
    key = tl.where(here, logit * columns + (columns - 1 - e)[None, :], least)
    taken = tl.zeros([tile, columns], tl.int32)
    for _ in range(chosen):
        best = key == tl.max(key, 1)[:, None]
        taken = tl.where(best, 1, taken)
        key = tl.where(best, least, key)
    tl.store(y + at, tl.where(taken > 0, gate, 0), mask=live)


@triton.jit(do_not_specialize=["count", "multiplier", "shift"])
def gelu(u, table, y, count, multiplier, shift, tile: tl.constexpr):
    """GELU of `count` int16 values to int8."""
    at = tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile)
    value = tl.load(u + at, mask=at < count, other=0).to(tl.int32)
    by = tl.full([1], 0, tl.int64)
    scaled = f.rescale(f.less_delta(value, table, 12), by + multiplier, by + shift)
    tl.store(y + at, f.sat8(scaled).to(tl.int8), mask=at < count)


@triton.jit(do_not_specialize=["count"])
def add(a, b, y, count, tile: tl.constexpr):
    """Sums of `count` int16 values, saturated."""
    at = tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile)
    left = tl.load(a + at, mask=at < count, other=0).to(tl.int32)
    right = tl.load(b + at, mask=at < count, other=0).to(tl.int32)
    tl.store(y + at, f.sat16(left + right).to(tl.int16), mask=at < count)


@triton.jit(do_not_specialize=["multiplier", "shift"])
def silu(u, blocks, table, y, hidden, multiplier, shift, tile: tl.constexpr, columns: tl.constexpr):
    """SILU_GATED: u int16 [pairs, 2 hidden], gates before values, to y int8 [pairs, hidden], a block of pairs each."""
    lane = tl.arange(0, tile)
    pair = (tl.load(blocks + tl.program_id(0) * 4 + 1) + lane).to(tl.int64)
    h = tl.program_id(1) * columns + tl.arange(0, columns)
    live = (lane < tl.load(blocks + tl.program_id(0) * 4 + 2))[:, None] & (h < hidden)[None, :]
    at = pair[:, None] * (2 * hidden) + h[None, :]
    gate = tl.load(u + at, mask=live, other=0).to(tl.int32)
    value = tl.load(u + at + hidden, mask=live, other=0).to(tl.int64)
    by = tl.full([1, 1], 0, tl.int64)
    scaled = f.rescale(f.less_delta(gate, table, 14).to(tl.int64) * value, by + multiplier, by + shift)
    tl.store(y + pair[:, None] * hidden + h[None, :], f.sat8(scaled).to(tl.int8), mask=live)


INTERPRETED = not any(isinstance(kernel, triton.JITFunction) for kernel in (norm, tl.cdiv))
"""Triton decided, when it was imported and when this was, whether it interprets its own functions and these."""
