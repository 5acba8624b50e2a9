# SPDX-License-Identifier: Apache-2.0
"""The exact functions behind the operators, on int64 arrays; no intermediate needs more than 63 bits.

Source of each formula: the parameter docstrings in `codesign.spec.ops`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codesign.reference.tables import (
    EXP2,
    GELU_DELTA,
    GELU_DOMAIN_BITS,
    GELU_GUARD_BITS,
    GELU_SEGMENT_BITS,
    RECIPROCAL,
    RECIPROCAL_FRACTION_BITS,
    RSQRT,
    RSQRT_FRACTION_BITS,
)
from codesign.spec.ops import (
    GATE_FRACTION_BITS,
    LOG2_FRACTION_BITS,
    NORM_FRACTION_BITS,
    PROBABILITY_FRACTION_BITS,
    PROBABILITY_MAX,
)
from codesign.spec.types import INT8, INT16, IntType, Requant

Ints = npt.NDArray[np.int64]

_EXP2 = EXP2.array
_RECIPROCAL = RECIPROCAL.array
_RSQRT = RSQRT.array
_GELU_DELTA = GELU_DELTA.array


def saturate(x: Ints, to: IntType) -> Ints:
    """Clamp to the range of an integer type."""
    return np.clip(x, to.min, to.max)


def shift_round(x: Ints, shift: Ints | int) -> Ints:
    """Arithmetic right shift by `shift` >= 1, rounding half up."""
    one = np.int64(1)
    return (x + (one << (np.asarray(shift, dtype=np.int64) - 1))) >> shift


def requantize(acc: Ints, rq: Requant) -> Ints:
    """Rescale `acc` [..., N] by a per-channel (N entries) or per-tensor (1 entry) requantization."""
    multiplier = np.array(rq.multiplier, dtype=np.int64)
    shift = np.array(rq.shift, dtype=np.int64)
    return saturate(shift_round(acc * multiplier, shift), rq.out_type)


def matmul(x: Ints, weight: Ints, bias: Ints) -> Ints:
    """Accumulator of a dense layer: x [T, K], weight [N, K], bias [N] -> [T, N].

    Computed in float64 matrix products, which are exact here: every partial sum is an integer below 2**53.
    """
    return (x.astype(np.float64) @ weight.T.astype(np.float64)).astype(np.int64) + bias


def gelu_fixed(u: Ints) -> Ints:
    """GELU on 10 fraction bits, before requantization: ReLU minus the interpolated table."""
    a = np.minimum(np.abs(u), (1 << GELU_DOMAIN_BITS) - 1)
    i, f = a >> GELU_SEGMENT_BITS, a & ((1 << GELU_SEGMENT_BITS) - 1)
    left = _GELU_DELTA[i]
    delta = shift_round(
        (left << GELU_SEGMENT_BITS) + (_GELU_DELTA[i + 1] - left) * f, GELU_SEGMENT_BITS + GELU_GUARD_BITS
    )
    delta = np.where(np.abs(u) >> GELU_DOMAIN_BITS, 0, delta)
    return np.maximum(u, 0) - delta


def exp2_fixed(d: Ints) -> Ints:
    """2**(15 - d / 256), truncated, for d >= 0; 0 where the integer part exceeds 15."""
    i = d >> LOG2_FRACTION_BITS
    e = _EXP2[d & ((1 << LOG2_FRACTION_BITS) - 1)] >> np.minimum(i, 15)
    return np.where(i > 15, 0, e)


def probability(d: Ints) -> Ints:
    """127 * 2**(-d / 256), rounded half up, for d >= 0 (0..127)."""
    i = np.minimum(d >> LOG2_FRACTION_BITS, 16)
    p = shift_round(_EXP2[d & ((1 << LOG2_FRACTION_BITS) - 1)] * PROBABILITY_MAX, 15 + i)
    return np.where(i > 15, 0, p)


def _log2_floor(x: Ints) -> Ints:
    """floor(log2(x)) for x > 0, exact below 2**63 (frexp would round up above 2**53)."""
    result = np.zeros_like(x)
    for step in (32, 16, 8, 4, 2, 1):
        high = (x >> (result + step)) > 0
        result = np.where(high, result + step, result)
    return result


def _shift_either(x: Ints, right: Ints) -> Ints:
    return np.where(right >= 0, x >> np.maximum(right, 0), x << np.maximum(-right, 0))


def reciprocal(z: Ints) -> tuple[Ints, Ints]:
    """(R, e) with 1/z ~ R * 2**-(30 + e) for z > 0; R has 16 bits, relative error below 1.1e-4."""
    e = _log2_floor(z) - 15
    v = _shift_either(z, e) - (1 << 15)
    i, f = v >> RECIPROCAL_FRACTION_BITS, v & ((1 << RECIPROCAL_FRACTION_BITS) - 1)
    left = _RECIPROCAL[i]
    return left - shift_round((left - _RECIPROCAL[i + 1]) * f, RECIPROCAL_FRACTION_BITS), e


def rsqrt(v: Ints) -> tuple[Ints, Ints]:
    """(R, e) with 1/sqrt(v) ~ R * 2**-(22 + e) for v > 0."""
    e = (_log2_floor(v) >> 1) - 7
    m = _shift_either(v, 2 * e) - (1 << 14)
    i, f = m >> RSQRT_FRACTION_BITS, m & ((1 << RSQRT_FRACTION_BITS) - 1)
    left = _RSQRT[i]
    return left - shift_round((left - _RSQRT[i + 1]) * f, RSQRT_FRACTION_BITS), e


def normalise(x: Ints) -> Ints:
    """Rows of x [T, D] to zero mean and unit variance, int16 with 10 fraction bits."""
    d = x.shape[-1]
    s = x.sum(axis=-1, keepdims=True)
    v = d * (x * x).sum(axis=-1, keepdims=True) - s * s
    r, e = rsqrt(np.maximum(v, 1))
    n = saturate(shift_round((d * x - s) * r, 22 - NORM_FRACTION_BITS + e), INT16)
    return np.where(v > 0, n, 0)


def attention_head(q: Ints, k: Ints, v: Ints, score: Requant, out: Requant) -> Ints:
    """One head: q, k, v [T, head_dim] -> int8 [T, head_dim]."""
    t = requantize(matmul(q, k, np.zeros(1, dtype=np.int64)), score)
    p = probability(t.max(axis=-1, keepdims=True) - t)
    acc = matmul(p, v.T, np.zeros(1, dtype=np.int64))
    r, e = reciprocal(p.sum(axis=-1, keepdims=True))
    z = saturate(shift_round(acc * r, 30 - PROBABILITY_FRACTION_BITS + e), INT16)
    return requantize(z, out)


def gates(t: Ints, top_k: int) -> Ints:
    """Logits t [T, E] (base 2, 8 fraction bits) to gates [T, E] with 15 fraction bits, 0 for experts not chosen."""
    x = exp2_fixed(t.max(axis=-1, keepdims=True) - t)
    r, e = reciprocal(x.sum(axis=-1, keepdims=True))
    g = shift_round(x * r, 30 - GATE_FRACTION_BITS + e)
    order = np.argsort(-t, axis=-1, kind="stable")[:, :top_k]
    chosen = np.zeros_like(g)
    np.put_along_axis(chosen, order, np.take_along_axis(g, order, axis=-1), axis=-1)
    return chosen


def gated_add(residual: Ints, value: Ints, gate: Ints) -> Ints:
    """residual [T, D] + value [T, D] * gate [T], both products and sums saturated to int16."""
    contribution = saturate(shift_round(value * gate[:, None], GATE_FRACTION_BITS), INT16)
    return saturate(residual + contribution, INT16)


def slice_planes(weight: Ints, bits: int) -> Ints:
    """int8 weights as their first `bits` bit planes give them: the middle of the interval; 8 keeps them."""
    if bits == INT8.bit_width:
        return weight
    drop = INT8.bit_width - bits
    return ((weight >> drop) << drop) + (1 << (drop - 1))


def affine(n: Ints, gain: Ints, bias: Ints, shift: int) -> Ints:
    """The affine part of a norm: n [T, D] with 10 fraction bits -> int8."""
    return saturate(shift_round(n * gain + bias, shift), INT8)
