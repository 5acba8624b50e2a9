# SPDX-License-Identifier: Apache-2.0
"""From float scales to a dense layer's integer parameters: biases and rescalings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.errors import InputError
from codesign.frontend.model import Floats, Ints
from codesign.frontend.quant import Weight
from codesign.spec import INT32, IntType, Requant

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
