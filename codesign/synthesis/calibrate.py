# SPDX-License-Identifier: Apache-2.0
"""From measured accumulators to integer parameters: scales, biases, rescalings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.reference import functions as f
from codesign.reference.functions import Ints
from codesign.spec import INT8, INT16, INT32, IntType, Requant
from codesign.synthesis.weights import Floats

_KEPT = 0.9995
"""Share of values that an int8 tensor's range holds; the others saturate."""
_HEADROOM = 2.0
"""Range of an int16 output, relative to the largest value seen."""
_ROUNDS = 80
"""Steps of the search for the routers' biases."""


@dataclass(frozen=True)
class Dense:
    """A dense layer in integers: `scale` [N] is the real value of one unit of accumulator and bias [N]."""

    weight: Ints
    bias: Ints
    scale: Floats

    def real(self, x: Ints) -> Floats:
        """Real outputs [rows, N] for integer inputs [rows, K]."""
        return f.matmul(x, self.weight, self.bias) * self.scale

    def requant(self, out_scale: float, out: IntType) -> Requant:
        """The rescaling per channel to a tensor of scale `out_scale`."""
        return Requant.of_scale([float(s) for s in self.scale / out_scale], out)

    def scaled(self, factor: Floats) -> Dense:
        """The layer with outputs [N] times `factor` [N]."""
        return replace(self, scale=self.scale * factor)


def fit(weight: Ints, x: Ints, sigma: float, sizes: Floats, mean: Floats, even: bool = False) -> Dense:
    """A layer over inputs x [rows, K] whose outputs have `mean` [N] and a typical standard deviation over the rows.

    Channel n gets scale `sizes[n]` times that which gives the median channel deviation `sigma`; `even`: each channel
    gets deviation `sigma * sizes[n]` exactly.
    """
    acc = f.matmul(x, weight, np.zeros(1, dtype=np.int64))
    spread = np.maximum(acc.std(axis=0), 1.0)
    scale = sigma * sizes / (spread if even else np.median(spread))
    return Dense(weight, bias_for(mean, scale, acc.mean(axis=0)), scale)


def bias_for(mean: Floats, scale: Floats, acc_mean: Floats) -> Ints:
    """The integer bias that moves an accumulator's mean to a real one."""
    return np.clip(np.rint(mean / scale - acc_mean), INT32.min, INT32.max).astype(np.int64)


def int8_scale(values: npt.NDArray[np.floating[Any]]) -> float:
    """The scale at which nearly all values fit int8."""
    return max(float(np.quantile(np.abs(values), _KEPT)), 1e-6) / INT8.max


def int16_scale(values: Floats) -> float:
    """The scale at which int16 holds the values with room to spare."""
    return max(float(np.abs(values).max()), 1e-6) * _HEADROOM / INT16.max


def row_spread(q: Floats, k: Floats) -> float:
    """Mean over queries of the standard deviation over keys of q . k / sqrt(head_dim); q, k [tokens, head_dim]."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    return float(scores.std(axis=1).mean())


def balance(logits: Floats, top_k: int, shares: Floats) -> Floats:
    """Biases [E] at which the top k of logits [rows, E] + bias fall to the experts about as `shares` [E] say.

    What a balance loss does in training, done directly; as in Wang et al. 2024 (auxiliary-loss-free balancing).
    """
    bias = np.zeros(logits.shape[1])
    if top_k == logits.shape[1]:
        return bias
    wanted = np.minimum(shares * top_k, 0.9) * len(logits)
    for step in range(_ROUNDS):
        chosen = np.argpartition(-(logits + bias), top_k - 1, axis=1)[:, :top_k]
        load = np.bincount(chosen.reshape(-1), minlength=len(bias))
        bias += 0.3 * (1.0 - step / _ROUNDS) * np.clip(np.log((wanted + 0.5) / (load + 0.5)), -1.0, 1.0)
    centred: Floats = bias - bias.mean()
    return centred


def without(weight: Floats, images: Floats) -> Floats:
    """Weight rows [E, D] made blind to what tells whole images apart: their mean tokens [n, D].

    A balance loss sees to that in training, or the experts of one image would idle in the next.
    """
    apart = images - images.mean(axis=0)
    coefficients, *_ = np.linalg.lstsq(apart.T, weight.T, rcond=1e-6)
    blind: Floats = weight - coefficients.T @ apart
    return blind
