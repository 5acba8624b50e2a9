# SPDX-License-Identifier: Apache-2.0
"""The one place that defines the operators: enum member, parameters, formula, integer types and rounding.

Notation: `rq(a, m, s) = (a * m + (1 << (s - 1))) >> s` with an arithmetic shift (round half up); `sat8` and `sat16`
saturate to int8 and int16; rows are tokens. The tables `EXP2`, `RECIPROCAL`, `RSQRT` and `GELU_DELTA` are those of
`codesign.reference.tables`. No operator's bits depend on the order of accumulation: sums are exact, the softmax takes
its sum over the quantized probabilities when their maximum is final, and experts add into the residual in ascending
order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from codesign.spec.types import Requant

LOG2_FRACTION_BITS = 8
"""Scores and logits are int16 in units of 2**-8 in the base-2 logarithm: softmax(x) = 2**(x*log2(e)) / sum."""

GELU_FRACTION_BITS = 10
"""GELU's argument and value are int16 in units of 2**-10 (range +-32)."""

NORM_FRACTION_BITS = 10
"""A normalised value (x - mean) / sigma is int16 in units of 2**-10; |value| <= sqrt(D) < 32 for D < 1024."""

PROBABILITY_MAX = 127
"""Unnormalised attention probabilities are 0..127: they travel through the same int8 array as activations."""

PROBABILITY_FRACTION_BITS = 8
"""Attention's weighted mean of v is kept as int16 with 8 fraction bits before its final requantization."""

GATE_FRACTION_BITS = 15
"""A gate is uint16 in units of 2**-15 (32768 = 1.0)."""


class OpKind(Enum):
    """Every operator an engine must implement. Formulas: the docstring of the parameter class of the same name."""

    LINEAR = "linear"
    GELU = "gelu"
    ADD = "add"
    NORM = "norm"
    ATTENTION = "attention"
    ROUTE = "route"
    EXPERTS = "experts"


@dataclass(frozen=True)
class LinearParams:
    """LINEAR(x int8 [T, K], weight int8 [N, K], bias int32 [N]) -> int8 or int16 [T, N].

    `y[t, n] = sat(rq(sum_k weight[n, k] * x[t, k] + bias[n], m[n], s[n]))`, saturated to `requant.out_type`.
    """

    requant: Requant


@dataclass(frozen=True)
class GeluParams:
    """GELU(u int16 [T, N], 10 fraction bits) -> int8 [T, N]. Hendrycks and Gimpel 2016; the table follows Edge-MoE.

    `g = max(u, 0) - delta(|u|)`, where `delta(a) = a * Phi(-a)` is interpolated in a table of 64 segments over [0, 4)
    and 0 beyond: `delta = (T[i] * 64 + (T[i+1] - T[i]) * f + (1 << 9)) >> 10` with `i = a >> 6`, `f = a & 63`; T has 4
    fraction bits more than u. Then `y = sat8(rq(g, m, s))`.
    """

    requant: Requant


@dataclass(frozen=True)
class AddParams:
    """ADD(a int16 [T, D], b int16 [T - row_offset, D]) -> int16 [T, D].

    `y = a; y[row_offset:] = sat16(a[row_offset:] + b)`.
    """

    row_offset: int = 0


@dataclass(frozen=True)
class NormParams:
    """NORM(x int16 [T, D], gain int16 [D], bias int32 [D]) -> int8 [T, D]: LayerNorm (Ba et al. 2016) in integers.

    Per row: `S = sum x`, `Q = sum x*x`, `V = D*Q - S*S` (= D**2 * variance, exact), `c = D*x - S`; with V > 0:
    `e = floor(log2 V) // 2 - 7`, `v = V >> 2e` (for e < 0: `V << -2e`) in [2**14, 2**16), `R = RSQRT(v)`
    ~ 2**22 / sqrt(v), `n = sat16((c * R + (1 << (11 + e))) >> (12 + e))` with 10 fraction bits; for V = 0: `n = 0`.
    Then `y = sat8((n * gain + bias + (1 << (shift - 1))) >> shift)`.
    """

    shift: int


@dataclass(frozen=True)
class AttentionParams:
    """ATTENTION(q, k, v int8 [T, heads*head_dim]) -> int8 [T, heads*head_dim].

    Per head and query row: `t[j] = sat16(rq(sum_d q[d] * k[j, d], score))` (base-2 logarithm, 8 fraction bits),
    `M = max_j t[j]` runs while the scores stream; then, while they are consumed, `p[j] = PROB(M - t[j])` in 0..127,
    where `PROB(d) = (EXP2[d & 255] * 127 + (1 << (14 + i))) >> (15 + i)`, `i = d >> 8` (0 where i > 15);
    `Z = sum_j p[j]`, `a[c] = sum_j p[j] * v[j, c]`; `(R, e) = RECIPROCAL(Z)` with `1/Z ~ R * 2**-(30 + e)`;
    `z[c] = sat16((a[c] * R + (1 << (21 + e))) >> (22 + e))` (8 fraction bits) and `y[c] = sat8(rq(z[c], out))`.
    No pass over the scores beyond writing and consuming them once: Edge-MoE's single-pass softmax, without rescaling.
    """

    num_heads: int
    head_dim: int
    score: Requant
    out: Requant


@dataclass(frozen=True)
class RouteParams:
    """ROUTE(x int8 [T, D], weight int8 [E, D], bias int32 [E]) -> gates uint16 [T, E], 0 for experts not chosen.

    `t[e] = sat16(rq(sum_k weight[e, k] * x[k] + bias[e], m[e], s[e]))` (base-2 logarithm, 8 fraction bits);
    `x[e] = EXP2[d & 255] >> (d >> 8)` with `d = max(t) - t[e]` (0 where d >> 8 > 15); `S = sum_e x[e]` over **all**
    experts; `(R, k) = RECIPROCAL(S)`; `gate[e] = (x[e] * R + (1 << (14 + k))) >> (15 + k)` with 15 fraction bits.
    The `top_k` largest `t` are chosen, the lower index first on a tie; gates are not renormalised (M3ViT, section 3.2).
    """

    top_k: int
    requant: Requant


@dataclass(frozen=True)
class ExpertsParams:
    """EXPERTS(x, gates, residual, w1, b1, w2, b2) -> int16 [T, D].

    x int8 [T, D], gates uint16 [T, E], residual int16 [T, D], w1 [E, H, D], b1 [E, H], w2 [E, D, H], b2 [E, D].
    For e ascending, for each token t with gates[t, e] > 0: `h = GELU(LINEAR(x[t], w1[e], b1[e]))` as in those
    operators (`fc1[e]` to int16 with 10 fraction bits, `gelu` to int8), `o = LINEAR(h, w2[e], b2[e])` to int16 by
    `fc2[e]`, and `residual[t] = sat16(residual[t] + sat16((o * gates[t, e] + (1 << 14)) >> 15))`.
    `slices[e]` = r < 8 stands for the first r bit planes of expert e's int8 weights (matryoshka, MatQuant section 3):
    `w` becomes `((w >> (8-r)) << (8-r)) + (1 << (7-r))`, the middle of the interval the r bits name; 8 keeps `w`,
    empty keeps all.
    """

    fc1: tuple[Requant, ...]
    gelu: Requant
    fc2: tuple[Requant, ...]
    slices: tuple[int, ...] = ()


OpParams = LinearParams | GeluParams | AddParams | NormParams | AttentionParams | RouteParams | ExpertsParams

PARAMS_OF = (
    (OpKind.LINEAR, LinearParams),
    (OpKind.GELU, GeluParams),
    (OpKind.ADD, AddParams),
    (OpKind.NORM, NormParams),
    (OpKind.ATTENTION, AttentionParams),
    (OpKind.ROUTE, RouteParams),
    (OpKind.EXPERTS, ExpertsParams),
)
"""Which parameter class belongs to which operator; `Node` checks it."""
