# SPDX-License-Identifier: Apache-2.0
"""From float scales to the integer parameters that every source of models needs: logits' unit, a norm's affine part."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.spec.ops import LOG2_FRACTION_BITS, NORM_FRACTION_BITS
from codesign.spec.types import INT16, INT32, MAX_SHIFT

LOGIT_FACTOR = math.log2(math.e) * 2**LOG2_FRACTION_BITS
"""From natural logarithm to the machine's: base 2 with 8 fraction bits."""


@dataclass(frozen=True)
class NormIntegers:
    """gain int16, bias int32 and shift of NORM."""

    gain: npt.NDArray[np.int64]
    bias: npt.NDArray[np.int64]
    shift: int


def norm_integers(
    name: str, gain: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], out_scale: float
) -> NormIntegers:
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
