# SPDX-License-Identifier: Apache-2.0
"""The exact functions against float and against big-integer arithmetic, over whole input ranges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.reference import TABLES
from codesign.reference import functions as f
from codesign.spec import INT8, INT16, INT32, Requant
from codesign.spec.types import MAX_SHIFT

ALL_INT16 = np.arange(-(1 << 15), 1 << 15, dtype=np.int64)


def test_tables_fit_their_widths_and_are_monotone_where_they_must() -> None:
    for table in TABLES:
        assert min(table.values) >= 0
        assert max(table.values) < 1 << table.bit_width
    exp2, reciprocal, rsqrt, _ = (t.array for t in TABLES)
    assert (np.diff(exp2) < 0).all()
    assert (np.diff(reciprocal) < 0).all()
    assert (np.diff(rsqrt) < 0).all()
    assert (exp2[0], reciprocal[0], reciprocal[-1], rsqrt[0], rsqrt[-1]) == (
        1 << 15,
        1 << 15,
        1 << 14,
        1 << 15,
        1 << 14,
    )


@pytest.mark.parametrize(
    ("x", "shift", "result"),
    [(1, 1, 1), (-1, 1, 0), (3, 1, 2), (-3, 1, -1), (2, 2, 1), (-2, 2, 0), (-3, 2, -1), (6, 2, 2)],
)
def test_ties_round_up(x: int, shift: int, result: int) -> None:
    assert int(f.shift_round(np.array(x), shift)) == result


@settings(max_examples=300)
@given(
    acc=st.integers(INT32.min, INT32.max),
    m=st.integers(0, (1 << 16) - 1),
    s=st.integers(1, MAX_SHIFT),
    wide=st.booleans(),
)
def test_requantize_equals_big_integers(acc: int, m: int, s: int, wide: bool) -> None:
    out = INT16 if wide else INT8
    exact = (acc * m + (1 << (s - 1))) >> s  # Python integers have no width
    found = f.requantize(np.array([[acc]]), Requant((m,), (s,), out))
    assert int(found[0, 0]) == max(out.min, min(out.max, exact))


@pytest.mark.parametrize("acc", [INT32.min, INT32.max])
def test_requantize_at_the_ends_of_everything(acc: int) -> None:
    for m in (1, (1 << 16) - 1):
        for s in (1, MAX_SHIFT):
            exact = max(INT16.min, min(INT16.max, (acc * m + (1 << (s - 1))) >> s))
            assert f.requantize(np.array([[acc]]), Requant((m,), (s,), INT16))[0, 0] == exact


def test_requantize_per_channel_equals_channel_by_channel() -> None:
    rng = np.random.default_rng(0)
    acc = rng.integers(-(10**6), 10**6, (7, 5))
    rq = Requant.of_scale([1e-4, 3e-4, 0.01, 2e-3, 1.0], INT8)
    whole = f.requantize(acc, rq)
    for c in range(5):
        one = Requant(rq.multiplier[c : c + 1], rq.shift[c : c + 1], INT8)
        assert np.array_equal(whole[:, c], f.requantize(acc[:, c : c + 1], one)[:, 0])


def test_matmul_is_exact_at_the_extremes() -> None:
    x = np.full((2, 1023), -128, dtype=np.int64)
    w = np.full((3, 1023), -128, dtype=np.int64)
    assert (f.matmul(x, w, np.array([0, 1, -1])) == 1023 * 128 * 128 + np.array([0, 1, -1])).all()


def test_gelu_over_every_argument() -> None:
    u = ALL_INT16 / 1024
    exact = np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in u])
    error = np.abs(f.gelu_fixed(ALL_INT16) / 1024 - exact)
    assert error.max() < 9.0e-4  # less than one step of 2**-10
    assert error.mean() < 1.0e-4
    assert int(f.gelu_fixed(np.array([0]))[0]) == 0


def test_gelu_is_the_identity_or_zero_far_out() -> None:
    assert np.array_equal(f.gelu_fixed(ALL_INT16[ALL_INT16 >= 4096]), ALL_INT16[ALL_INT16 >= 4096])
    assert not f.gelu_fixed(ALL_INT16[ALL_INT16 <= -4096]).any()


def test_exp2_over_every_distance() -> None:
    d = np.arange(1 << 16, dtype=np.int64)
    error = np.abs(f.exp2_fixed(d) / 2**15 - 2.0 ** (-d / 256))
    assert error.max() < 1.01 * 2.0**-15 + 2.0**-16  # truncation of one step, and the table's rounding
    assert f.exp2_fixed(np.array([0]))[0] == 1 << 15
    assert (np.diff(f.exp2_fixed(d)) <= 0).all()


def test_probability_over_every_distance() -> None:
    d = np.arange(1 << 16, dtype=np.int64)
    p = f.probability(d)
    assert np.abs(p - 127 * 2.0 ** (-d / 256)).max() < 0.5 + 127 * 2.0**-16
    assert (p[0], p.min(), p[-1]) == (127, 0, 0)
    assert (np.diff(p) <= 0).all()


def sweep(top: int) -> np.ndarray:
    """Every integer up to 2**17, then some of every octave, its ends included."""
    rng = np.random.default_rng(0)
    octaves = [
        np.concatenate([[1 << b, (2 << b) - 1], rng.integers(1 << b, 2 << b, 2000)]) for b in range(17, top) if b < 62
    ]
    return np.concatenate([np.arange(1, 1 << 17), *octaves]).astype(np.int64)


def test_reciprocal_over_its_range() -> None:
    z = sweep(40)
    r, e = f.reciprocal(z)
    assert r.min() >= 1 << 14
    assert r.max() <= 1 << 15
    assert np.abs(r * 2.0 ** -(30.0 + e) * z - 1).max() < 1.1e-4


def test_rsqrt_over_its_range() -> None:
    v = sweep(57)
    r, e = f.rsqrt(v)
    assert r.min() >= 1 << 14
    assert r.max() <= 1 << 15
    assert np.abs(r * 2.0 ** -(22.0 + e) * np.sqrt(v.astype(np.float64)) - 1).max() < 1.6e-4


@pytest.mark.parametrize("x", [1, 2, 3, 2**31, 2**52 - 1, 2**53 - 1, 2**54 - 1, 2**62 - 1, 2**62])
def test_log2_floor_is_exact(x: int) -> None:
    assert int(f._log2_floor(np.array([x], dtype=np.int64))[0]) == x.bit_length() - 1


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(2, 1023), spread=st.sampled_from([1, 30, 1000, 32767]))
def test_normalise_against_float(seed: int, dim: int, spread: int) -> None:
    x = np.random.default_rng(seed).integers(-spread, spread + 1, (4, dim))
    n = f.normalise(x) / 1024
    sigma = x.std(axis=1, keepdims=True)
    exact = np.where(sigma > 0, (x - x.mean(axis=1, keepdims=True)) / np.where(sigma > 0, sigma, 1), 0.0)
    assert (np.abs(n - exact) <= 0.51 / 1024 + 1.6e-4 * np.abs(exact)).all()


@pytest.mark.parametrize("dim", [1, 2, 64, 1023])
def test_normalise_at_the_extremes(dim: int) -> None:
    flat = np.full((1, dim), INT16.min, dtype=np.int64)
    assert not f.normalise(flat).any()  # no variance: zero, without a division
    spike = flat.copy()
    spike[0, 0] = INT16.max
    n = f.normalise(spike)
    assert np.abs(n[0, 0] / 1024 - math.sqrt(dim - 1)) < 1.6e-4 * math.sqrt(dim) + 0.51 / 1024
    tiny = np.zeros((1, dim), dtype=np.int64)
    tiny[0, -1] = 1
    assert np.abs(f.normalise(tiny)[0, -1] / 1024 - math.sqrt(dim - 1)) < 1.6e-4 * math.sqrt(dim) + 0.51 / 1024


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 200), hd=st.sampled_from([4, 32, 64]))
def test_attention_against_float_softmax(seed: int, tokens: int, hd: int) -> None:
    """Ends within the error that quantizing probabilities to 1/127 alone may cause, plus one step.

    Scores stay inside the +-88 (natural logarithm) that their 16 bits hold.
    """
    rng = np.random.default_rng(seed)
    q, k, v = (rng.integers(-128, 128, (tokens, hd)) for _ in range(3))
    factor = 10.0 ** rng.uniform(-3, 0) * 88 / np.abs(q @ k.T).max()
    score = Requant.of_scale(factor * math.log2(math.e) * 256, INT16)
    y = f.attention_head(q, k, v, score, Requant.of_scale(2.0**-8, INT8))
    s = factor * (q @ k.T)
    p = np.exp(s - s.max(axis=1, keepdims=True))
    exact = p @ v / p.sum(axis=1, keepdims=True)
    rounded = np.abs(np.rint(p * 127) / 127 - p).sum(axis=1, keepdims=True) + 0.5 / 127
    bound = 2 * 128 * (rounded + 0.003 * p.sum(axis=1, keepdims=True)) / p.sum(axis=1, keepdims=True) + 1.1
    assert (np.abs(y - exact) <= bound).all()
    assert np.abs(y - exact).mean() < 1.5


def test_attention_of_one_token_returns_v() -> None:
    v = np.arange(-128, 128, dtype=np.int64).reshape(1, 256)
    q = np.full((1, 256), 100, dtype=np.int64)
    assert np.array_equal(f.attention_head(q, q, v, Requant.of_scale(1e-3, INT16), Requant.of_scale(2.0**-8, INT8)), v)


def test_attention_saturates_scores_not_probabilities() -> None:
    """Two scores that both saturate share the probability: the order of a too large score does not matter."""
    q = np.array([[127, 0]])
    k = np.array([[127, 0], [126, 0], [-128, 0]])
    y = f.attention_head(
        q, k, np.array([[100, 0], [-100, 0], [50, 0]]), Requant.of_scale(100.0, INT16), Requant.of_scale(2.0**-8, INT8)
    )
    assert abs(int(y[0, 0])) <= 1


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), experts=st.integers(1, 64), spread=st.sampled_from([0, 20, 500, 32767]))
def test_gates_against_float_softmax(seed: int, experts: int, spread: int) -> None:
    t = np.random.default_rng(seed).integers(-spread, spread + 1, (5, experts))
    found = f.gates(t, experts) / 2**15
    x = 2.0 ** ((t - t.max(axis=1, keepdims=True)) / 256)
    assert np.abs(found - x / x.sum(axis=1, keepdims=True)).max() < 2.0**-15 * (experts + 1) + 1.2e-4
    assert found.sum(axis=1).max() < 1 + 2.0**-15 * experts + 1.2e-4


def test_gates_choose_the_lower_index_on_a_tie() -> None:
    g = f.gates(np.array([[5, 7, 7, 7, 5], [0, 0, 0, 0, 0], [-3, 9, -3, -3, -3]]), 2)
    assert [list(np.nonzero(row)[0]) for row in g] == [[1, 2], [0, 1], [0, 1]]


def test_gates_are_not_renormalised() -> None:
    """Softmax is over all experts; choosing does not change the values."""
    t = np.random.default_rng(0).integers(-300, 300, (6, 8))
    every, chosen = f.gates(t, 8), f.gates(t, 2)
    assert np.array_equal(chosen[chosen > 0], every[chosen > 0])
    assert ((chosen > 0).sum(axis=1) == 2).all()


def test_gated_add_saturates() -> None:
    residual = np.array([[32767, -32768, 0, 0]])
    value = np.array([[32767, -32768, 3, -3]])
    assert f.gated_add(residual, value, np.array([1 << 15])).tolist() == [[32767, -32768, 3, -3]]
    assert f.gated_add(residual, value, np.array([1 << 14])).tolist() == [
        [32767, -32768, 2, -1]
    ]  # 1.5 and -1.5 round up
