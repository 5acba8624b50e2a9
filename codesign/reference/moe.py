# SPDX-License-Identifier: Apache-2.0
"""MOE in exact integers: the judge of the streaming runtime, for every format. Formulas: `codesign.spec.moe`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.reference import functions as f
from codesign.reference.experts import residual_matmul
from codesign.reference.functions import Ints
from codesign.reference.tables import SILU_DELTA, SILU_DOMAIN_BITS, SILU_GUARD_BITS, SILU_SEGMENT_BITS
from codesign.spec.moe import Activation, ExpertFormat, MoeConstants, MoeLayer, Rescaling, WidthPolicy
from codesign.spec.ops import GATE_FRACTION_BITS
from codesign.spec.types import INT16

Widths = npt.NDArray[np.uint8]

_SILU_DELTA = SILU_DELTA.array


@dataclass(frozen=True)
class Matrix:
    """A weight matrix in a format: digits [N, K] of each level, and for the residual format A [levels, N, groups] and
    Z [N, groups].
    """

    digits: tuple[Ints, ...]
    multipliers: Ints | None = None
    zeros: Ints | None = None


Experts = Callable[[int], tuple[Matrix, Matrix]]
"""An expert's number to its w1 and w2."""


def moe(
    layer: MoeLayer,
    kind: ExpertFormat,
    constants: MoeConstants,
    experts: Experts,
    x: Ints,
    gates: Ints,
    residual: Ints,
    widths: Widths,
) -> Ints:
    """MOE(x, gates, residual, widths) [T, D]. `widths` counts where a gate is not 0.

    Raises InputError for a width that the format does not have.
    """
    y = residual.astype(np.int64)
    for e in range(layer.num_experts):
        if not gates[:, e].any():
            continue
        w1, w2 = experts(e)
        for width in sorted({int(w) for w in widths[gates[:, e] > 0, e]}):
            queue = np.nonzero((gates[:, e] > 0) & (widths[:, e] == width))[0]
            count = kind.level_count(width)
            u = rescale(dot(x[queue], w1, kind, count), constants.fc1, count - 1, e)
            h = activate(layer, u)
            o = rescale(dot(h, w2, kind, count), constants.fc2, count - 1, e)
            y[queue] = f.gated_add(y[queue], o, gates[queue, e])
    return y


def dot(x: Ints, weight: Matrix, kind: ExpertFormat, count: int) -> Ints:
    """The sums x [T, K] . w [N, K] with the first `count` levels of a matrix, [T, N]."""
    if kind is ExpertFormat.RESIDUAL:
        return residual_dot(x, weight, count)
    return f.matmul(x, integers(weight, kind, count), np.zeros(1, dtype=np.int64))


def integers(weight: Matrix, kind: ExpertFormat, count: int) -> Ints:
    """The weights [N, K] that the first `count` levels stand for (not of the residual format, which has groups)."""
    codes = np.zeros_like(weight.digits[0])
    for digits, level in zip(weight.digits[:count], kind.levels[:count], strict=True):
        codes += digits << level.position
    below = kind.levels[count - 1].position
    return codes + ((1 << below) >> 1) - kind.offset


def residual_dot(x: Ints, weight: Matrix, count: int) -> Ints:
    """The sums of the residual format, group by group (docs/edge.md, section 4), [T, N]."""
    assert weight.multipliers is not None
    assert weight.zeros is not None
    by_level = [a.T for a in weight.multipliers[:count]]
    return residual_matmul(x, weight.digits[0], by_level[0], weight.zeros.T, weight.digits[1:count], by_level[1:])


def rescale(acc: Ints, by: Rescaling, width: int, expert: int) -> Ints:
    """Sums [T, N] of an expert to int16, by the bias and rescaling for the width of that index."""
    row = by.row(width), expert
    scaled = (acc + by.bias[row]) * by.multiplier[row].astype(np.int64)
    return f.saturate(f.shift_round(scaled, by.shift[row].astype(np.int64)), INT16)


def activate(layer: MoeLayer, u: Ints) -> Ints:
    """The hidden values int8 [T, H] of the first layer's int16 ones."""
    if layer.activation is Activation.GELU:
        return f.requantize(f.gelu_fixed(u), layer.hidden_requant)
    gate, up = u[:, : layer.hidden], u[:, layer.hidden :]
    return f.requantize(silu_fixed(gate) * up, layer.hidden_requant)


def silu_fixed(g: Ints) -> Ints:
    """SiLU on 10 fraction bits: ReLU minus the interpolated table."""
    a = np.minimum(np.abs(g), (1 << SILU_DOMAIN_BITS) - 1)
    i, part = a >> SILU_SEGMENT_BITS, a & ((1 << SILU_SEGMENT_BITS) - 1)
    left = _SILU_DELTA[i]
    delta = f.shift_round(
        (left << SILU_SEGMENT_BITS) + (_SILU_DELTA[i + 1] - left) * part, SILU_SEGMENT_BITS + SILU_GUARD_BITS
    )
    return np.maximum(g, 0) - np.where(np.abs(g) >> SILU_DOMAIN_BITS, 0, delta)


def choose_widths(gates: Ints, kind: ExpertFormat, policy: WidthPolicy) -> Widths:
    """The width of each pair [T, E] by the policy; 0 where the gate is 0."""
    share = gates << GATE_FRACTION_BITS
    largest = gates.max(axis=1, keepdims=True)
    wide = np.where(share >= policy.high * largest, 2, np.where(share >= policy.low * largest, 1, 0))
    step = np.maximum(wide + len(kind.widths) - 3, 0)
    return np.where(gates > 0, np.array(kind.widths)[step], 0).astype(np.uint8)


def matrix_of(weight: Ints, kind: ExpertFormat) -> Matrix:
    """Integer weights [N, K] as the digits of a format. Raises InputError for weights that its codes do not hold."""
    codes = weight + kind.offset
    limit = 1 << sum(level.bits for level in kind.levels)
    top = 3 if kind in (ExpertFormat.TERNARY, ExpertFormat.TRITS) else limit
    if kind is ExpertFormat.RESIDUAL or (codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < top):
        found = f"{weight.min(initial=0)}..{weight.max(initial=0)}"
        raise InputError(f"weights must fit the format {kind.value}, not span {found}; pack them in another format")
    return Matrix(tuple((codes >> level.position) & ((1 << level.bits) - 1) for level in kind.levels))
