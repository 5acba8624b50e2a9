# SPDX-License-Identifier: Apache-2.0
"""The parts of fitting: lines, rescalings, ternary and residual weights."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.experts.pack.fit import FormatChoice, fit_expert, ternarized
from codesign.experts.pack.fitting import adjusted, fit_line, rescaled
from codesign.experts.pack.mixtures import Expert, Samples, rescaling_of
from codesign.experts.pack.pack import sqnr_db
from codesign.experts.pack.residual import fit_residual, hessian_of
from codesign.reference.functions import Ints
from codesign.reference.moe import residual_dot
from codesign.spec import INT8, INT16, Requant
from codesign.spec.moe import RESIDUAL_MULTIPLIER_MAX, Activation, ExpertFormat, MoeLayer


def test_lines_are_least_squares() -> None:
    rng = np.random.default_rng(0)
    found = rng.normal(0, 100, (500, 3))
    wanted = found * [1.2, 0.7, 1.0] + [5.0, -9.0, 0.0]
    line = fit_line(wanted, found)
    np.testing.assert_allclose(line.gain, [1.2, 0.7, 1.0])
    np.testing.assert_allclose(line.offset, [5, -9, 0], atol=1e-9)
    noisy = fit_line(wanted + rng.normal(0, 30, wanted.shape), found)
    assert np.abs(noisy.gain - [1.2, 0.7, 1.0]).max() < 0.05


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_few_rows_do_not_make_gains(rows: int) -> None:
    found = np.random.default_rng(0).normal(0, 100, (rows, 4))
    line = fit_line(found * 3 + 1, found)
    np.testing.assert_array_equal(line.gain, 1.0)
    assert np.isfinite(line.offset).all()


def test_gains_are_bounded_and_constant_columns_do_no_harm() -> None:
    found = np.tile([5.0, 0.0, 1.0], (20, 1))
    found[:, 2] = np.arange(20) * 0.01
    line = fit_line(np.full((20, 3), 7.0) + np.arange(20)[:, None], found)
    np.testing.assert_array_equal(line.gain, [1.0, 1.0, 4.0])


def test_a_row_counts_as_often_as_its_weight_says() -> None:
    rng = np.random.default_rng(1)
    found, often = rng.integers(-100, 100, (60, 3)), rng.integers(1, 5, 60)
    wanted = found * [1.2, 0.7, 1.0] + rng.normal(0, 40, (60, 3))
    line = fit_line(wanted, found.astype(float), often.astype(float))
    repeated = fit_line(np.repeat(wanted, often, axis=0), np.repeat(found, often, axis=0).astype(float))
    np.testing.assert_allclose(line.gain, repeated.gain)
    np.testing.assert_allclose(line.offset, repeated.offset)
    assert np.abs(line.gain - fit_line(wanted, found.astype(float)).gain).max() > 1e-3
    np.testing.assert_allclose(hessian_of(found, often.astype(float)), hessian_of(np.repeat(found, often, axis=0)))


def test_rows_with_small_gates_matter_little() -> None:
    """An expert is fitted where its outputs count: with small gates on half of the rows, the others decide."""
    rng = np.random.default_rng(2)
    layer = MoeLayer("m", 64, 64, 1, 1, Activation.GELU, Requant.of_scale([2.0**-7], INT8))
    weights = [rng.integers(-127, 128, (64, 64)) for _ in range(2)]
    rescaling = rescaling_of(Requant.of_scale([2.0**-9] * 64, INT16), np.zeros(64, dtype=np.int64))
    expert = Expert(*weights, rescaling, rescaling)
    loud, quiet = rng.integers(-128, 128, (200, 64)), rng.integers(0, 9, (200, 64))
    choice = FormatChoice(ExpertFormat.NESTED)

    def fitted(x: np.ndarray, gates: np.ndarray) -> np.ndarray:
        return fit_expert(layer, expert, 0, choice, Samples(x, gates[:, None])).fc1.bias[0]

    both = np.concatenate([loud, quiet])
    alone = fitted(loud, np.full(200, 1 << 15))
    small = fitted(both, np.repeat([1 << 15, 1 << 6], 200))
    alike = fitted(both, np.repeat([1 << 15, 1 << 15], 200))
    assert np.abs(small - alone).mean() < 0.05 * np.abs(alike - alone).mean()


def test_rescalings_follow_units_and_lines() -> None:
    own = rescaling_of(Requant.of_scale([0.01, 0.02], INT16), np.array([1000, -300]))
    halved = rescaled(own, np.array([0.5, 2.0]), 10)
    np.testing.assert_array_equal(halved.bias, [[2000, -150]])
    line = fit_line(np.arange(20.0)[:, None] * [2.0, 0.5] + 10, np.arange(20.0)[:, None] * [1.0, 1.0])
    moved = adjusted(own, line, 10)
    np.testing.assert_array_equal(moved.bias, [[505, -580]])
    np.testing.assert_allclose(moved.multiplier * 2.0**-moved.shift, [[0.02, 0.01]], rtol=1e-4)


def test_ternarized_weights_are_absmean() -> None:
    weight = np.array([[10, -10, 1, 0], [0, 0, 0, 0], [100, -2, 3, -1]])
    ternary, worth = ternarized(weight)
    np.testing.assert_array_equal(ternary, [[1, -1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(worth, [10, 1, 100])


def correlated(rng: np.random.Generator, rows: int, columns: int) -> Ints:
    mix = np.random.default_rng(9).normal(size=(columns, columns)) * (np.arange(1, columns + 1) ** -0.7)[:, None]
    x = rng.normal(size=(rows, columns)) @ mix
    return np.clip(np.rint(x / x.std() * 30), -128, 127).astype(np.int64)


def test_residual_levels_and_compensation() -> None:
    """Each level adds, compensation adds at every width where inputs go together; integers stay within their bounds."""
    rng = np.random.default_rng(0)
    weight = np.clip(np.rint(rng.standard_t(6, (24, 200)) * 20), -127, 127).astype(np.int64)
    weight[3] = 0
    train, test = correlated(rng, 900, 200), correlated(rng, 300, 200)
    wanted = test @ weight.T
    found = []
    for hessian in (None, hessian_of(train)):
        matrix, unit = fit_residual(weight, hessian)
        assert matrix.multipliers is not None
        assert matrix.zeros is not None
        assert np.abs(matrix.multipliers).max() == RESIDUAL_MULTIPLIER_MAX
        assert 0 <= matrix.zeros.min() <= matrix.zeros.max() <= 3 * RESIDUAL_MULTIPLIER_MAX
        assert [int(d.max()) for d in matrix.digits] == [3, 1, 1]
        sums = [np.rint(residual_dot(test, matrix, count) * unit).astype(np.int64) for count in (1, 2, 3)]
        assert not sums[2][:, 3].any()
        found.append([sqnr_db(wanted, s) for s in sums])
    plain, compensated = found
    assert plain[0] < plain[1] - 2 < plain[2] - 3
    assert compensated[0] < compensated[1] < compensated[2]
    assert all(c > p + 1.5 for c, p in zip(compensated, plain, strict=True))


def test_large_biases_fit_their_units() -> None:
    weight = np.random.default_rng(0).integers(-127, 128, (4, 32))
    bias = np.array([0, 10, -(1 << 29), 1 << 20])
    matrix, unit = fit_residual(weight, None, bias)
    assert np.abs(bias / unit).max() <= 1 << 26
    whole = residual_dot(np.eye(32, dtype=np.int64), matrix, 3) * unit
    assert np.abs(whole.T - weight)[[0, 1, 3]].max() < 60


def test_damaged_hessians_do_no_harm() -> None:
    """Inputs that are never used: a singular Hessian."""
    weight = np.random.default_rng(0).integers(-127, 128, (8, 32))
    x = np.zeros((10, 32), dtype=np.int64)
    for rows in (x, np.eye(10, 32, dtype=np.int64) * 50):
        matrix, unit = fit_residual(weight, hessian_of(rows))
        assert np.isfinite(unit).all()
        whole = residual_dot(np.eye(32, dtype=np.int64), matrix, 3) * unit
        assert np.abs(whole.T - weight).max() < 127
