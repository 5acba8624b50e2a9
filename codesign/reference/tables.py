# SPDX-License-Identifier: Apache-2.0
"""The integer tables of the non-linear operators, computed once here and printed into C headers and `.mem` files.

Each entry is `floor(exact + 1/2)` of a smooth function that stays far from ties: double precision settles them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.spec.ops import GELU_FRACTION_BITS, LOG2_FRACTION_BITS


@dataclass(frozen=True)
class Table:
    """A read-only table of unsigned integers of `bit_width` bits."""

    name: str
    bit_width: int
    values: tuple[int, ...]

    @property
    def array(self) -> npt.NDArray[np.int64]:
        """The entries as an int64 array."""
        return np.array(self.values, dtype=np.int64)


def _round(x: float) -> int:
    return math.floor(x + 0.5)


EXP2_BITS = 16
RECIPROCAL_INDEX_BITS = 6
RECIPROCAL_FRACTION_BITS = 9
RSQRT_FRACTION_BITS = 9
GELU_SEGMENT_BITS = 6
GELU_GUARD_BITS = 4
GELU_DOMAIN_BITS = GELU_FRACTION_BITS + 2  # |u| < 4.0

EXP2 = Table(
    "exp2", EXP2_BITS, tuple(_round(2.0 ** (15 - f / 2**LOG2_FRACTION_BITS)) for f in range(1 << LOG2_FRACTION_BITS))
)
"""EXP2[f] = 2**15 * 2**(-f / 256)."""

RECIPROCAL = Table(
    "reciprocal", 16, tuple(_round(2.0**30 / (2**15 + (i << RECIPROCAL_FRACTION_BITS))) for i in range(65))
)
"""RECIPROCAL[i] = 2**30 / (2**15 + 512 i): the reciprocal of a 16-bit mantissa in [2**15, 2**16), 64 segments."""

RSQRT = Table("rsqrt", 16, tuple(_round(2.0**22 / math.sqrt(2**14 + (i << RSQRT_FRACTION_BITS))) for i in range(97)))
"""RSQRT[i] = 2**22 / sqrt(2**14 + 512 i): for a 16-bit mantissa in [2**14, 2**16), 96 segments."""


def _gelu_delta(a: float) -> float:
    return a * 0.5 * math.erfc(a / math.sqrt(2.0))


GELU_DELTA = Table(
    "gelu_delta",
    12,
    tuple(
        _round(_gelu_delta(i / 16) * 2 ** (GELU_FRACTION_BITS + GELU_GUARD_BITS)) if i < 64 else 0
        for i in range((1 << (GELU_DOMAIN_BITS - GELU_SEGMENT_BITS)) + 1)
    ),
)
"""GELU_DELTA[i] = a * Phi(-a) at a = i / 16, 14 fraction bits: what ReLU has too much. The last entry is 0."""

SILU_SEGMENT_BITS = GELU_SEGMENT_BITS
SILU_GUARD_BITS = GELU_GUARD_BITS
SILU_DOMAIN_BITS = GELU_FRACTION_BITS + 4  # |g| < 16.0


def _silu_delta(a: float) -> float:
    return a / (1.0 + math.exp(a))


SILU_DELTA = Table(
    "silu_delta",
    13,
    tuple(
        _round(_silu_delta(i / 16) * 2 ** (GELU_FRACTION_BITS + SILU_GUARD_BITS)) if i < 256 else 0
        for i in range((1 << (SILU_DOMAIN_BITS - SILU_SEGMENT_BITS)) + 1)
    ),
)
"""SILU_DELTA[i] = a * sigma(-a) at a = i / 16, 14 fraction bits. For experts from a store only: no machine has it."""

TABLES = (EXP2, RECIPROCAL, RSQRT, GELU_DELTA)
