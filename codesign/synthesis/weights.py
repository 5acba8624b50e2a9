# SPDX-License-Identifier: Apache-2.0
"""Random weights as training leaves them: heavy tails, channels of unequal size, quantized per output channel."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from codesign.reference.functions import Ints
from codesign.synthesis.recipe import ExpertWeights

Floats = npt.NDArray[np.float64]

TAIL = 6.0
"""Degrees of freedom of Student's t: an excess kurtosis of 3, between a Gaussian's and a Laplacian's."""
_INPUT_SPREAD = 0.25
"""Sigma of the log-normal sizes of a weight's input columns."""
_INT4_CLIP = 3.5
"""int4's largest weight, in root mean squares: near the least squared error for such tails."""


def generator(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one named thing: they do not depend on what else the model has."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def log_normal(rng: np.random.Generator, shape: int | tuple[int, ...], sigma: float) -> Floats:
    """Positive sizes with median 1."""
    return np.exp(rng.normal(0.0, sigma, shape))


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Weights [..., outputs, inputs] with tails, and with columns of unequal size."""
    columns = log_normal(rng, (*shape[:-2], 1, shape[-1]), _INPUT_SPREAD)
    values: Floats = rng.standard_t(TAIL, shape) * columns
    return values


def filters(rng: np.random.Generator, outputs: int, channels: int, patch: int) -> Floats:
    """Smooth filters [outputs, channels * patch * patch], as patch embeddings learn them.

    Cosine waves with amplitudes that fall with frequency; three quarters of the filters ignore the mean.
    """
    k = np.arange(patch)
    waves = np.cos(np.pi * np.outer(k, k + 0.5) / patch)  # [frequency, position]
    falling = 1.0 / (1.0 + k[:, None] + k[None, :])
    amplitudes = rng.normal(0.0, 1.0, (outputs, channels, patch, patch)) * falling
    amplitudes[rng.random(outputs) < 0.75, :, 0, 0] = 0.0
    noise = 0.02 * rng.normal(0.0, 1.0, (outputs, channels, patch, patch))
    values: Floats = np.einsum("ocuv,uy,vx->ocyx", amplitudes, waves, waves) + noise
    return values.reshape(outputs, -1)


def quantized(values: Floats, kind: ExpertWeights) -> Ints:
    """Integers for weights [..., outputs, inputs], symmetric, with one scale per output channel.

    int8 spans the largest weight, int4 clips, ternary rounds weight / mean(|weight|) (BitNet b1.58, equation 3).
    """
    sizes = np.abs(values)
    if kind is ExpertWeights.TERNARY:
        largest, limit = sizes.mean(axis=-1, keepdims=True), 1
    elif kind is ExpertWeights.INT4:
        rms = np.sqrt(np.square(values).mean(axis=-1, keepdims=True))
        largest, limit = np.minimum(_INT4_CLIP * rms, sizes.max(axis=-1, keepdims=True)), 7
    else:
        largest, limit = sizes.max(axis=-1, keepdims=True), 127
    integers: Ints = np.clip(np.rint(values * (limit / largest)), -limit, limit).astype(np.int64)
    return integers
