# SPDX-License-Identifier: Apache-2.0
"""Products with weights in levels and with residual planes, in exact integers (docs/edge.md, sections 1 and 4).

These take codes one a value; where their bits lie in memory is the kernels' business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codesign.reference.functions import Ints
from codesign.spec.moe import GROUP

RESIDUAL_GROUP = GROUP
"""Inputs that share a multiplier of the residual format; the last group may be shorter."""


def level_matmul(x: Ints, levels: Sequence[tuple[Ints, int]], offset: int) -> Ints:
    """x [T, K] with the weights `sum over levels of (digits << position) + offset`; digits [N, K]. -> [T, N]."""
    weight = sum((digits.astype(np.int64) << position for digits, position in levels), start=np.int64(offset))
    return np.asarray(x.astype(np.int64) @ np.asarray(weight).T)


def residual_matmul(
    x: Ints, base: Ints, multiplier: Ints, zero: Ints, planes: Sequence[Ints], plane_multipliers: Sequence[Ints]
) -> Ints:
    """x [T, K] with a base of 2 bits [N, K] and planes of 1 bit [N, K]; multipliers and `zero` [groups, N]. -> [T, N].

    sum over groups of 128 inputs of A0 (u0 . x) - Z sum(x) + sum over planes of Ap (2 (up . x) - sum(x)).
    """
    x = x.astype(np.int64)
    total = np.zeros((len(x), len(base)), dtype=np.int64)
    for g, start in enumerate(range(0, x.shape[1], RESIDUAL_GROUP)):
        part = slice(start, start + RESIDUAL_GROUP)
        sums = x[:, part].sum(axis=1, keepdims=True)
        total += multiplier[g].astype(np.int64) * (x[:, part] @ base[:, part].astype(np.int64).T)
        total -= zero[g].astype(np.int64) * sums
        for plane, a in zip(planes, plane_multipliers, strict=True):
            total += a[g].astype(np.int64) * (2 * (x[:, part] @ plane[:, part].astype(np.int64).T) - sums)
    return total
