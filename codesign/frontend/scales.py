# SPDX-License-Identifier: Apache-2.0
"""From float scales to integer parameters: biases, rescalings, the affine part of a norm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from codesign.errors import InputError
from codesign.frontend.model import Floats, Ints
from codesign.frontend.quant import Weight
from codesign.spec import INT16, INT32, IntType, Requant
from codesign.spec.ops import LOG2_FRACTION_BITS, NORM_FRACTION_BITS
from codesign.spec.types import MAX_SHIFT

LOGIT_FACTOR = math.log2(math.e) * 2**LOG2_FRACTION_BITS
"""From natural logarithm to the machine's: base 2 with 8 fraction bits."""

_DEAD_CHANNEL_BIAS = 1 << 20
"""A channel whose weights are all 0 has no scale of its own; its bias gets this magnitude."""


@dataclass(frozen=True)
class Accumulator:
    """A dense layer's integers: `scale` [..., N] is the unit of the accumulator and of `bias` [..., N]."""

    scale: Floats
    bias: Ints

    def requant(self, out_scale: float, out: IntType) -> Requant:
        """The rescaling per channel [N] to a tensor of scale `out_scale`."""
        return Requant.of_scale([float(s) for s in self.scale / out_scale], out)


def accumulate(x_scale: float, weight: Weight, bias: Floats) -> Accumulator:
    """Accumulator of weights [..., N, K] over inputs of scale `x_scale`. Raises InputError if a bias leaves int32."""
    scale = x_scale * weight.per_output()
    dead = ~weight.values.any(axis=-1)
    scale = np.where(dead & (bias != 0), np.abs(bias) / _DEAD_CHANNEL_BIAS, scale)
    rounded = np.rint(bias / scale)
    if np.abs(rounded).max(initial=0) > INT32.max:
        channel = int(np.argmax(np.abs(rounded)))
        raise InputError(
            f"bias of weight {weight.name} must fit int32 in units of its scales, not"
            f" {rounded.reshape(-1)[channel]:.3g} in channel {channel}; enlarge the weight scale"
        )
    return Accumulator(scale, rounded.astype(np.int64))


@dataclass(frozen=True)
class NormIntegers:
    """gain int16, bias int32 and shift of NORM."""

    gain: Ints
    bias: Ints
    shift: int


def norm_integers(name: str, gain: Floats, bias: Floats, out_scale: float) -> NormIntegers:
    """The most precise affine part: the largest shift whose gain fits int16 and whose sum stays inside 32 bits.

    y = n * 2**-10 * gain / out_scale + bias / out_scale, with |n| <= 2**15. Raises InputError if no shift fits.
    """
    for shift in range(MAX_SHIFT, 0, -1):
        g = np.rint(gain / out_scale * 2.0 ** (shift - NORM_FRACTION_BITS))
        b = np.rint(bias / out_scale * 2.0**shift)
        if (
            np.abs(g).max() <= INT16.max
            and (np.abs(g) * -INT16.min + np.abs(b)).max() + 2.0 ** (shift - 1) <= INT32.max
        ):
            return NormIntegers(g.astype(np.int64), b.astype(np.int64), shift)
    raise InputError(
        f"gain and bias of node {name} must suit its Quant's scale, not exceed it {out_scale:g} by 2**15; retrain"
    )
