# SPDX-License-Identifier: Apache-2.0
"""Weights have the distribution of trained ones in every format."""

from __future__ import annotations

import numpy as np

from codesign.synthesis.recipe import ExpertWeights
from codesign.synthesis.weights import filters, generator, heavy_tailed, quantized

VALUES = heavy_tailed(generator(0, "test"), (4, 96, 192))


def test_tails_are_heavy() -> None:
    standard = VALUES / VALUES.std(axis=-1, keepdims=True)
    assert 4.5 < (standard**4).mean() < 9.0  # a Gaussian has 3


def test_ternary_is_a_third_zeros() -> None:
    w = quantized(VALUES, ExpertWeights.TERNARY)
    assert set(np.unique(w)) == {-1, 0, 1}
    assert 0.3 < (w == 0).mean() < 0.4
    assert abs(w.mean()) < 0.01


def test_int8_spans_its_narrow_range_in_every_channel() -> None:
    assert (np.abs(quantized(VALUES, ExpertWeights.INT8)).max(axis=-1) == 127).all()


def test_int4_uses_its_range_and_clips_the_tails() -> None:
    w = quantized(VALUES, ExpertWeights.INT4)
    assert (np.abs(w).max(axis=-1) == 7).all()
    assert 0.005 < (np.abs(w) == 7).mean() < 0.03
    step = (w * VALUES).sum(axis=-1, keepdims=True) / np.square(w).sum(axis=-1, keepdims=True)
    # the least that any symmetric step reaches is 0.031
    assert np.square(w * step - VALUES).mean() < 0.033 * np.square(VALUES).mean()


def test_names_and_seeds_draw_independently() -> None:
    a, b, c = (generator(seed, name).random(4) for seed, name in ((0, "a"), (0, "b"), (1, "a")))
    assert not np.allclose(a, b)
    assert not np.allclose(a, c)
    assert np.array_equal(a, generator(0, "a").random(4))


def test_filters_are_smooth() -> None:
    w = filters(generator(0, "filters"), 64, 3, 16).reshape(64, 3, 16, 16)
    assert np.square(np.diff(w, axis=-1)).mean() < 0.5 * np.square(w).mean()  # noise would give 2
    assert (np.abs(w.mean(axis=(-1, -2))) < 0.02).mean() > 0.6
