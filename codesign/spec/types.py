# SPDX-License-Identifier: Apache-2.0
"""Integer types, requantization parameters and tensor descriptions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from codesign.errors import InputError

MULTIPLIER_BITS = 16
"""A multiplier is unsigned and normalised to [2**15, 2**16), so that its relative error stays below 2**-16."""

MAX_SHIFT = 62
"""Largest right shift of a requantization: an accumulator of 32 bits times a multiplier of 16 leaves nothing above."""


class Rounding(Enum):
    """How a right shift rounds. One member today; the name is written down so that no engine guesses."""

    HALF_UP = "half_up"


@dataclass(frozen=True)
class IntType:
    """An integer type of `bit_width` bits, two's complement when signed."""

    bit_width: int
    signed: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.bit_width <= 64:
            raise InputError(f"bit_width must be in 1..64, not {self.bit_width!r}; choose a supported integer type")

    @property
    def min(self) -> int:
        """Smallest representable value."""
        return -(1 << (self.bit_width - 1)) if self.signed else 0

    @property
    def max(self) -> int:
        """Largest representable value."""
        return (1 << (self.bit_width - 1)) - 1 if self.signed else (1 << self.bit_width) - 1

    def __str__(self) -> str:
        return f"{'' if self.signed else 'u'}int{self.bit_width}"


INT8 = IntType(8)
INT16 = IntType(16)
INT32 = IntType(32)
UINT16 = IntType(16, signed=False)


@dataclass(frozen=True)
class Requant:
    """Per-channel rescaling of an accumulator: `saturate((acc * multiplier + (1 << (shift - 1))) >> shift)`.

    `multiplier` and `shift` have one entry per output channel, or exactly one entry for a per-tensor rescaling.
    """

    multiplier: tuple[int, ...]
    shift: tuple[int, ...]
    out_type: IntType
    rounding: Rounding = Rounding.HALF_UP

    def __post_init__(self) -> None:
        if len(self.multiplier) != len(self.shift) or not self.multiplier:
            raise InputError(
                f"requant must have as many multipliers as shifts, not {len(self.multiplier)} and {len(self.shift)};"
                " give one pair per output channel"
            )
        for m in self.multiplier:
            if not 0 <= m < 1 << MULTIPLIER_BITS:
                raise InputError(
                    f"multiplier must fit {MULTIPLIER_BITS} unsigned bits, not {m!r}; use Requant.of_scale"
                )
        for s in self.shift:
            if not 1 <= s <= MAX_SHIFT:
                raise InputError(f"shift must be in 1..{MAX_SHIFT}, not {s!r}; use Requant.of_scale")

    @staticmethod
    def of_scale(scale: float | list[float], out_type: IntType) -> Requant:
        """The closest requantization to a real factor `scale` (one, or one per output channel).

        Raises InputError when a factor is not finite, negative, or too large for a shift of at least 1.
        """
        pairs = [_multiplier_shift(float(s)) for s in (scale if isinstance(scale, list) else [scale])]
        return Requant(tuple(m for m, _ in pairs), tuple(s for _, s in pairs), out_type)


def _multiplier_shift(scale: float) -> tuple[int, int]:
    if not math.isfinite(scale) or scale < 0:
        raise InputError(f"scale must be finite and not negative, not {scale!r}; check the model's quantization scales")
    if scale == 0.0:
        return 0, 1
    mantissa, exponent = math.frexp(scale)  # scale = mantissa * 2**exponent, mantissa in [0.5, 1)
    multiplier = round(mantissa * (1 << MULTIPLIER_BITS))
    shift = MULTIPLIER_BITS - exponent
    if multiplier == 1 << MULTIPLIER_BITS:
        multiplier, shift = multiplier >> 1, shift - 1
    if shift > MAX_SHIFT:
        return 0, 1
    if shift < 1:
        raise InputError(
            f"scale must be below {1 << (MULTIPLIER_BITS - 1)}, not {scale!r}; check the quantization scales"
        )
    return multiplier, shift


@dataclass(frozen=True)
class TensorSpec:
    """Shape, integer type and scale of a tensor. The scale is metadata: no integer engine reads it."""

    name: str
    shape: tuple[int, ...]
    type: IntType
    scale: float
