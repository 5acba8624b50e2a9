# SPDX-License-Identifier: Apache-2.0
"""Scales, biases and loads come out as asked."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.reference import functions as f
from codesign.spec import INT8, INT16, INT32
from codesign.spec.patches import to_patches
from codesign.spec.scales import norm_integers
from codesign.synthesis.calibrate import balance, fit, int8_scale, int16_scale, without
from codesign.synthesis.pictures import photographs
from codesign.synthesis.recipe import ImageRecipe

RNG = np.random.default_rng(0)
X = RNG.integers(-100, 128, (400, 32))
WEIGHT = RNG.integers(-127, 128, (24, 32))


def test_fit_gives_mean_and_deviation() -> None:
    sizes, mean = np.linspace(0.5, 2.0, 24), np.linspace(-1.0, 1.0, 24)
    y = fit(WEIGHT, X, 0.7, sizes, mean, even=True).real(X)
    assert np.allclose(y.mean(axis=0), mean, atol=1e-3)
    assert np.allclose(y.std(axis=0), 0.7 * sizes)
    typical = fit(WEIGHT, X, 0.7, np.ones(24), mean).real(X).std(axis=0)
    assert np.median(typical) == pytest.approx(0.7)
    assert typical.std() > 0.01


def test_the_rescaling_agrees_with_the_real_value() -> None:
    dense = fit(WEIGHT, X, 1.0, np.ones(24), np.zeros(24))
    scale = int8_scale(dense.real(X))
    y = f.requantize(f.matmul(X, dense.weight, dense.bias), dense.requant(scale, INT8))
    assert np.abs(y - np.clip(dense.real(X) / scale, -128, 127)).max() <= 0.51
    assert 0 < ((y == -128) | (y == 127)).mean() < 0.002


def test_a_constant_input_is_no_trouble() -> None:
    y = fit(WEIGHT, np.zeros((5, 32), dtype=np.int64), 1.0, np.ones(24), np.full(24, 2.0)).real(X * 0)
    assert np.allclose(y, 2.0, atol=0.5)
    assert int8_scale(np.zeros(3)) > 0
    assert int16_scale(np.zeros(3)) > 0


def test_norm_integers_are_precise_and_fit() -> None:
    gain, bias = RNG.normal(0, 1, 64), RNG.normal(0, 0.2, 64)
    integers = norm_integers("norm", gain, bias, 4.0 / 127)
    g, b, shift = integers.gain, integers.bias, integers.shift
    assert np.abs(g).max() <= INT16.max
    assert (np.abs(g) * -INT16.min + np.abs(b)).max() + 2 ** (shift - 1) <= INT32.max
    n = RNG.integers(-4000, 4000, (50, 64))
    wanted = np.clip((n / 1024 * gain + bias) / (4.0 / 127), -128, 127)
    assert np.abs(f.affine(n, g, b, shift) - wanted).max() < 0.52


@pytest.mark.parametrize("top_k", [1, 2, 4, 8])
def test_balance(top_k: int) -> None:
    rng = np.random.default_rng(top_k)
    logits = rng.normal(0, 1, (2000, 8)) + rng.normal(0, 1, 8)
    shares = np.array([1, 1, 1, 1, 1, 1, 1, 2]) / 9
    biased = logits + balance(logits, top_k, shares)
    chosen = np.argsort(-biased, axis=1)[:, :top_k]
    load = np.bincount(chosen.reshape(-1), minlength=8) / 2000
    if top_k == 8:
        assert np.array_equal(biased, logits)
    else:
        assert np.allclose(load, np.minimum(shares * top_k, 0.9), atol=0.04)


def test_without_images() -> None:
    weight, images = RNG.normal(0, 1, (8, 32)), RNG.normal(0, 1, (4, 32))
    blind = without(weight, images)
    assert np.ptp(blind @ images.T, axis=1).max() < 1e-9
    assert np.square(blind).sum() > 0.7 * np.square(weight).sum()


def test_photographs_are_photographs() -> None:
    spec = ImageRecipe(height=96, width=160, patch=16, channels=3).spec
    plain, crops = photographs(spec, 4), photographs(spec, 4, np.random.default_rng(1))
    assert plain.shape == crops.shape == (4, 96, 160, 3)
    assert np.array_equal(plain[0], plain[2])
    assert not np.array_equal(crops[0], crops[2])
    for image in (*plain[:2], *crops):
        assert image.std() > 20  # neither flat
        assert np.abs(np.diff(image.astype(int), axis=1)).mean() < 0.4 * image.std()  # nor noise
    grey = ImageRecipe(height=96, width=160, patch=16, channels=1).spec
    assert photographs(grey, 1).shape == (1, 96, 160, 1)
    x = to_patches(plain, spec)
    assert x.shape == (4, 60, 768)
    assert np.array_equal(x[1, 11].reshape(3, 16, 16).transpose(1, 2, 0) + 128, plain[1, 16:32, 16:32])
