# SPDX-License-Identifier: Apache-2.0
"""Dense layers packed for one variant, each once, whoever uses them: plans of several tasks share their weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from codesign.errors import InputError
from codesign.kernels.layout import MAX_INPUTS
from codesign.kernels.native import Variant, native
from codesign.reference.functions import Ints
from codesign.reference.tables import EXP2, GELU_DELTA, RECIPROCAL, RSQRT
from codesign.spec import INT32, Requant

Native = Any
"""An object of the native module."""


@cache
def native_tables() -> Native:
    """The tables of the reference, as the kernels take them."""
    arrays = [np.array(table.values, dtype=np.uint16) for table in (EXP2, RECIPROCAL, RSQRT, GELU_DELTA)]
    return native().Tables(*arrays)


@dataclass(frozen=True)
class Key:
    """What makes a packed layer: names of weight and bias, which expert, how many bit planes, and the rescaling."""

    weight: str
    bias: str
    expert: int
    bits: int
    requant: Requant


@dataclass(frozen=True)
class Packed:
    """The packed layers of a graph. Not for use by several threads while plans are being built."""

    variant: Variant
    whole_bytes: bool = False
    """Keep 8 bits even for weights that need fewer."""
    layers: dict[Key, Native] = field(default_factory=dict)

    def layer(self, key: Key, weight: Ints, bias: Ints) -> Native:
        """The layer of weight [N, K] and bias [N]. Raises InputError for too many inputs or too large a sum."""
        if key not in self.layers:
            self.layers[key] = self._pack(key, weight, bias)
        return self.layers[key]

    def _pack(self, key: Key, weight: Ints, bias: Ints) -> Native:
        if not 1 <= weight.shape[1] <= MAX_INPUTS:
            raise InputError(
                f"inputs of {key.weight} must be in 1..{MAX_INPUTS}, not {weight.shape[1]}; split the layer"
            )
        layer = native().dense(
            np.ascontiguousarray(weight, dtype=np.int8),
            np.ascontiguousarray(bias, dtype=np.int32),
            np.array(key.requant.multiplier, dtype=np.uint16),
            np.array(key.requant.shift, dtype=np.uint8),
            self.variant.native,
            self.whole_bytes,
        )
        if layer.reach > INT32.max:
            raise InputError(
                f"sums of {key.weight} must fit 32 bits, not reach {layer.reach}; use smaller weights or a smaller bias"
            )
        return layer
