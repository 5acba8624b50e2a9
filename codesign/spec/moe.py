# SPDX-License-Identifier: Apache-2.0
"""A mixture layer whose experts come from a store, and the formats that they rest in. Contract: docs/edge.md.

MOE(x int8 [T, D], gates uint16 [T, E], residual int16 [T, D], widths uint8 [T, E]) -> int16 [T, D].
As EXPERTS in `ops.py`, but token t uses expert e at width `widths[t, e]`, and the rescalings may depend on the width:
for e ascending, for each token t with gates[t, e] > 0, with w the index of widths[t, e] among the format's widths:
`u = sat16(rq(dot(x[t], w1[e]) + b1[w, e], m1[w, e], s1[w, e]))` with 10 fraction bits; then the activation to int8;
`o = sat16(rq(dot(h, w2[e]) + b2[w, e], m2[w, e], s2[w, e]))`,
`residual[t] = sat16(residual[t] + sat16((o * gates[t, e] + (1 << 14)) >> 15))`.

`dot` multiplies with the integers that the levels up to that width stand for (docs/edge.md, sections 1 and 4).
Activations, with `hidden_requant` (m, s): GELU: that operator. SILU_GATED: w1 has 2H rows, `g, v = u[:H], u[H:]`,
`silu(g) = max(g, 0) - delta(|g|)`, `delta(a) = a * sigma(-a)` interpolated in a table of 256 segments over [0, 16),
and 0 beyond: `delta = (T[i] * 64 + (T[i+1] - T[i]) * f + (1 << 9)) >> 10`, `i = a >> 6`, `f = a & 63`; T has 4
fraction bits more than g. Then `h = sat8(rq(silu(g) * v, m, s))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.spec.ops import GATE_FRACTION_BITS
from codesign.spec.types import INT8, Requant

GROUP = 128
"""Inputs of a group of the residual format; the last one may be shorter."""
RESIDUAL_MULTIPLIER_MAX = 4095
"""Largest |A| of the residual format, with Z in 0..3 times that: every weight `A0 u0 - Z +- A1 +- A2` fits int16, and
sums stay below 2**36 for 8,192 inputs, exact in double when rescaled."""


def check_residual(multipliers: npt.NDArray[np.int16], zeros: npt.NDArray[np.int32] | None = None) -> None:
    """Raise InputError for an A or Z of the residual format that leaves these limits."""
    limit = RESIDUAL_MULTIPLIER_MAX
    if multipliers.size and not -limit <= int(multipliers.min()) <= int(multipliers.max()) <= limit:
        found = f"{multipliers.min()}..{multipliers.max()}"
        raise InputError(f"multipliers must be within +-{limit}, not {found}; pack the experts again")
    if zeros is not None and zeros.size and not 0 <= int(zeros.min()) <= int(zeros.max()) <= 3 * limit:
        raise InputError(f"zeros must be in 0..{3 * limit}, not {zeros.min()}..{zeros.max()}; pack the experts again")


class Activation(Enum):
    """What stands between an expert's two layers."""

    GELU = "gelu"
    SILU_GATED = "silu_gated"


class ExpertFormat(Enum):
    """How the weights of experts rest in a store (docs/edge.md, section 4)."""

    INT8 = "int8"
    TERNARY = "ternary"
    TRITS = "trits"
    """Ternary, five codes to a byte."""
    NESTED = "nested"
    RESIDUAL = "residual"

    @property
    def levels(self) -> tuple[Level, ...]:
        """What is read, one after the other."""
        return _LEVELS[self]

    @property
    def widths(self) -> tuple[int, ...]:
        """Bits a weight after reading 1, 2, ... levels."""
        bits = [level.bits for level in self.levels]
        return tuple(sum(bits[: i + 1]) for i in range(len(bits)))

    @property
    def offset(self) -> int:
        """What a code is larger than its weight (0 for residual, whose groups have their own)."""
        return {ExpertFormat.INT8: 128, ExpertFormat.NESTED: 128, ExpertFormat.RESIDUAL: 0}.get(self, 1)

    def level_count(self, width: int) -> int:
        """How many levels a width reads. Raises InputError for a width that the format does not have."""
        if width not in self.widths:
            known = ", ".join(map(str, self.widths))
            raise InputError(
                f"width must be one of {known} for {self.value} experts, not {width!r}; choose one of those"
            )
        return self.widths.index(width) + 1


@dataclass(frozen=True)
class Level:
    """One level of the weights' codes: `bits` of each, worth `digit << position`. `trits`: five to a byte in the file.

    The planes of the residual format have position 0: their multipliers say what they are worth.
    """

    bits: int
    position: int
    trits: bool = False


_LEVELS: Mapping[ExpertFormat, tuple[Level, ...]] = MappingProxyType(
    {
        ExpertFormat.INT8: (Level(8, 0),),
        ExpertFormat.TERNARY: (Level(2, 0),),
        ExpertFormat.TRITS: (Level(2, 0, trits=True),),
        ExpertFormat.NESTED: (Level(2, 6), Level(2, 4), Level(4, 0)),
        ExpertFormat.RESIDUAL: (Level(2, 0), Level(1, 0), Level(1, 0)),
    }
)


@dataclass(frozen=True)
class MoeLayer:
    """Shape of a mixture layer. `hidden_requant` (one entry, to int8) is that of the activation."""

    name: str
    embed_dim: int
    hidden: int
    num_experts: int
    top_k: int
    activation: Activation
    hidden_requant: Requant

    def __post_init__(self) -> None:
        for what in ("embed_dim", "hidden", "num_experts", "top_k"):
            value = getattr(self, what)
            if not 1 <= value <= 1 << 16:
                raise InputError(f"{what} of layer {self.name} must be in 1..65536, not {value!r}; correct the model")
        if self.top_k > self.num_experts:
            raise InputError(
                f"top_k of layer {self.name} must be at most num_experts ({self.num_experts}), not {self.top_k};"
                " correct the model"
            )
        if len(self.hidden_requant.multiplier) != 1 or self.hidden_requant.out_type != INT8:
            raise InputError(f"hidden_requant of layer {self.name} must be one pair to int8; correct the model")

    @property
    def rows1(self) -> int:
        """Outputs of the first layer: hidden, or gate rows and then up rows."""
        return self.hidden * (2 if self.activation is Activation.SILU_GATED else 1)

    @property
    def shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """[rows, columns] of w1 and of w2."""
        return (self.rows1, self.embed_dim), (self.embed_dim, self.hidden)


@dataclass(frozen=True)
class Rescaling:
    """Bias int32, multiplier uint16 and shift uint8 of a layer of all experts, each [W, E, N].

    W is 1 when every width has the same, else the number of widths.
    """

    bias: npt.NDArray[np.int32]
    multiplier: npt.NDArray[np.uint16]
    shift: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        for array in (self.bias, self.multiplier, self.shift):
            if array.shape != self.bias.shape or array.ndim != 3:
                raise InputError(f"rescaling must have one shape [W, E, N], not {array.shape}; pack the experts again")
            array.setflags(write=False)

    def row(self, index: int) -> int:
        """The first index for the width of that index."""
        return index if len(self.bias) > 1 else 0


@dataclass(frozen=True)
class MoeConstants:
    """What stays resident of a mixture layer: the rescalings of both matrices."""

    fc1: Rescaling
    fc2: Rescaling


@dataclass(frozen=True)
class WidthPolicy:
    """The width of each pair of token and expert, until a bit-width router is trained.

    The share of the gate in the token's largest gate decides, exactly: the widest from `high`, the one before it from
    `low`, else the narrowest. Both in units of 2**-15.
    """

    high: int = 1 << (GATE_FRACTION_BITS - 1)
    low: int = 1 << (GATE_FRACTION_BITS - 2)

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= (1 << GATE_FRACTION_BITS) + 1:
            raise InputError(
                f"thresholds must be 0 <= low <= high <= 1, not {self.low / 2**15:g} and {self.high / 2**15:g};"
                " correct them"
            )
