# SPDX-License-Identifier: Apache-2.0
"""The arithmetic units of hls/ against codesign.reference, value by value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codesign.reference import functions as f
from codesign.schedule.design import MachineSize
from codesign.spec.types import INT8, INT16, Requant
from tests.hls.build import compile_hls, evaluate
from tests.hls.programs import Ints

SIZE = MachineSize(
    simd=32,
    pe=16,
    ports=2,
    act_words=64,
    res_words=64,
    max_rows=129,
    key_words=5,
    max_experts=12,
    acc_bits=32,
    norm_dim_max=1008,
    max_instructions=64,
    fifo_blocks=32,
)


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_hls(tmp_path_factory.mktemp("units"), SIZE, ("tests/units.cpp",), "c++14")


def test_gelu_of_every_int16(units: Path) -> None:
    u = np.arange(-(1 << 15), 1 << 15)
    np.testing.assert_array_equal(evaluate(units, "gelu", u, 1)[:, 0], f.gelu_fixed(u))


def test_exp2_of_every_distance(units: Path) -> None:
    d = np.arange(1 << 16)
    np.testing.assert_array_equal(evaluate(units, "exp2", d, 1)[:, 0], f.exp2_fixed(d))


def test_probability_of_every_distance(units: Path) -> None:
    d = np.arange(1 << 16)
    np.testing.assert_array_equal(evaluate(units, "probability", d, 1)[:, 0], f.probability(d))


def _around_powers_of_two(bits: int) -> Ints:
    rng = np.random.default_rng(0)
    near = [(1 << b) + d for b in range(bits) for d in range(-3, 4)]
    spread = np.exp2(rng.uniform(0, bits, 20000)).astype(np.int64)
    values = np.unique(np.concatenate([np.arange(1, 1 << 14), np.array(near), spread]))
    return values[(values > 0) & (values < 1 << bits)]


@pytest.mark.parametrize("name", ["reciprocal", "rsqrt"])
def test_reciprocals(units: Path, name: str) -> None:
    z = _around_powers_of_two(56)
    expected = np.stack((f.reciprocal if name == "reciprocal" else f.rsqrt)(z), axis=1)
    np.testing.assert_array_equal(evaluate(units, name, z, 2), expected)


def test_requantize_extremes_and_ties(units: Path) -> None:
    """Every shift, the largest accumulators (with their bias), and sums that land exactly between two integers."""
    rng = np.random.default_rng(1)
    edges = [-(1 << 32), (1 << 32) - 1, -(1 << 31), (1 << 31) - 1, -1, 0, 1]
    acc = np.concatenate([edges, rng.integers(-(1 << 32), 1 << 32, 100)])
    rows = [(a, m, s) for s in range(1, 63) for m in (0, 1, 1 << 15, (1 << 16) - 1, 40503) for a in acc]
    odd = (-3, -1, 1, 3, 255, -257)
    rows += [(o << max(s - 16, 0), 1 << min(s - 1, 15), s) for s in range(1, 40) for o in odd]
    records = np.array(rows, dtype=np.int64)
    records = records[np.abs(records[:, 0]) <= 1 << 32]
    got = evaluate(units, "requantize", records, 2)
    product = records[:, 0] * records[:, 1]
    for column, out_type in enumerate((INT8, INT16)):
        np.testing.assert_array_equal(got[:, column], f.saturate(f.shift_round(product, records[:, 2]), out_type))


@pytest.mark.parametrize("dim", [1, 7, 192, 1000])
def test_norm_of_rows(units: Path, dim: int) -> None:
    """All of a norm but its sums: roots, centring, affine, with saturated, equal and one-hot rows."""
    rng = np.random.default_rng(dim)
    x = rng.integers(-(1 << 15), 1 << 15, (40, dim)) >> rng.integers(0, 16, (40, 1))
    x[0], x[1], x[2] = 32767, -32768, 0
    x[2, 0] = -32768
    x[3] = np.where(np.arange(dim) % 2, 32767, -32768)
    gain, bias = rng.integers(-(1 << 15), 1 << 15, dim), rng.integers(-(1 << 31), 1 << 31, dim)
    for shift in (1, 17, 20, 31):
        expected = f.affine(f.normalise(x), gain, bias, shift)
        records = np.empty((*x.shape, 7), dtype=np.int64)
        records[..., 0], records[..., 1] = x.sum(axis=1, keepdims=True), (x * x).sum(axis=1, keepdims=True)
        for column, value in enumerate((dim, x, gain, bias, shift), start=2):
            records[..., column] = value
        got = evaluate(units, "norm", records.reshape(-1, 7), 1)
        np.testing.assert_array_equal(got.reshape(x.shape), expected)


@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (4, 2), (11, 3), (12, 12)])
def test_router(units: Path, experts: int, top_k: int) -> None:
    """Random logits, ties, and one expert so far ahead that others' gates vanish."""
    rng = np.random.default_rng(experts)
    t = np.concatenate([rng.integers(-(1 << 15), 1 << 15, (300, experts)), rng.integers(-3, 4, (300, experts)) << 6])
    t[0], t[1] = 0, -(1 << 15)
    records = np.full((len(t), 2 + SIZE.max_experts), 32767, dtype=np.int64)  # lanes of experts that do not exist
    records[:, 0], records[:, 1], records[:, 2 : 2 + experts] = experts, top_k, t
    got = evaluate(units, "choose", records, SIZE.max_experts)
    np.testing.assert_array_equal(got[:, :experts], f.gates(t, top_k))
    assert not got[:, experts:].any()


def test_mac_array_packs_two_products(units: Path) -> None:
    """Two products share a multiplier: all corners of int8, so that the halves borrow and carry as far as they can."""
    rng = np.random.default_rng(2)
    corners = np.array([-128, 127, -1, 0, 1])
    shape = (200, SIZE.pe * SIZE.simd + SIZE.simd)
    records = np.concatenate([rng.choice(corners, shape), rng.integers(-128, 128, shape), np.full((1, shape[1]), -128)])
    weight = records[:, : SIZE.macs].reshape(-1, SIZE.pe, SIZE.simd)
    expected = np.einsum("rps,rs->rp", weight, records[:, SIZE.macs :])
    np.testing.assert_array_equal(evaluate(units, "mac", records, SIZE.pe), expected)


def test_requantize_is_the_judges(units: Path) -> None:
    """The same numbers through codesign.spec's Requant, per channel."""
    rng = np.random.default_rng(3)
    scales = [float(s) for s in np.exp2(rng.uniform(-30, 2, 64))]
    rq = Requant.of_scale(scales, INT8)
    acc = rng.integers(-(1 << 24), 1 << 24, (50, 64))
    records = np.stack(np.broadcast_arrays(acc, np.array(rq.multiplier), np.array(rq.shift)), axis=-1).reshape(-1, 3)
    got = evaluate(units, "requantize", records, 2)[:, 0].reshape(acc.shape)
    np.testing.assert_array_equal(got, f.requantize(acc, rq))
