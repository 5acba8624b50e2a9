# SPDX-License-Identifier: Apache-2.0
"""Dense products of every variant that this processor runs, against exact integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.kernels import native as loader
from codesign.kernels.layout import MAX_INPUTS
from codesign.kernels.native import Variant, choose_variant, native, variants
from codesign.reference import functions as f

VARIANTS = variants()
Ints = npt.NDArray[np.int64]


def sums(x: Ints, weight: Ints, bias: Ints, variant: Variant, whole_bytes: bool = False) -> Ints:
    """x [T, K] times weight [N, K], plus bias, by the native kernels."""
    one = np.ones(1, dtype=np.uint16), np.ones(1, dtype=np.uint8)
    layer = native().dense(weight.astype(np.int8), bias.astype(np.int32), *one, variant.native, whole_bytes)
    y = np.empty((x.shape[0], weight.shape[0]), dtype=np.int32)
    layer.sums(x.astype(np.int8), y, variant.native)
    return y.astype(np.int64)


def expected(x: Ints, weight: Ints, bias: Ints) -> Ints:
    return x @ weight.T + bias


@pytest.mark.parametrize("variant", VARIANTS)
class TestSums:
    @pytest.mark.parametrize("inputs", [1, 3, 63, 64, 65, 192, 1000, MAX_INPUTS])
    @pytest.mark.parametrize(("x_is", "w_is"), [(-128, -128), (-128, 127), (127, -128), (127, 127)])
    def test_extremes_do_not_wrap(self, variant: Variant, inputs: int, x_is: int, w_is: int) -> None:
        x, weight = np.full((3, inputs), x_is), np.full((17, inputs), w_is)
        x[1, ::2], weight[1, ::2] = -x_is - 1, -w_is - 1  # and with signs that alternate
        bias = np.arange(17) - 8
        np.testing.assert_array_equal(sums(x, weight, bias, variant), expected(x, weight, bias))

    def test_sums_reach_the_ends_of_32_bits(self, variant: Variant) -> None:
        """The bias takes the sum to the last integer; on the way, with the codes' offset, it may wrap and return."""
        x, weight = np.full((2, MAX_INPUTS), -128), np.full((2, MAX_INPUTS), -128)
        weight[1] = 127
        products = x[0] @ weight.T
        bias = np.array([2**31 - 1, -(2**31)]) - products
        np.testing.assert_array_equal(sums(x, weight, bias, variant), [[2**31 - 1, -(2**31)]] * 2)

    @given(st.integers(1, 70), st.integers(1, 300), st.integers(1, 90), st.integers(0, 2**32 - 1))
    @settings(deadline=None, max_examples=60)
    def test_any_shape(self, variant: Variant, rows: int, inputs: int, outputs: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        limit = int(rng.choice([1, 7, 127]))
        x = rng.integers(-128, 128, (rows, inputs))
        weight = rng.integers(-limit - (limit > 1), limit + 1, (outputs, inputs))
        bias = rng.integers(-(2**20), 2**20, outputs)
        np.testing.assert_array_equal(sums(x, weight, bias, variant), expected(x, weight, bias))

    @pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 15, 16, 17, 31, 32, 33, 129])
    def test_any_rows(self, variant: Variant, rows: int) -> None:
        rng = np.random.default_rng(rows)
        x, weight = rng.integers(-128, 128, (rows, 192)), rng.integers(-128, 128, (100, 192))
        bias = np.zeros(100, dtype=np.int64)
        np.testing.assert_array_equal(sums(x, weight, bias, variant), expected(x, weight, bias))

    @pytest.mark.parametrize(("low", "high", "bits"), [(-1, 1, 2), (-1, 2, 4), (-8, 7, 4), (-8, 8, 8), (-128, 127, 8)])
    def test_weights_take_the_fewest_bits(self, variant: Variant, low: int, high: int, bits: int) -> None:
        rng = np.random.default_rng(3)
        weight = rng.integers(low, high + 1, (40, 130))
        weight[0, :2] = low, high
        x, bias = rng.integers(-128, 128, (21, 130)), rng.integers(-99, 99, 40)
        one = np.ones(1, dtype=np.uint16), np.ones(1, dtype=np.uint8)
        for whole, found in ((False, bits), (True, 8)):
            layer = native().dense(weight.astype(np.int8), bias.astype(np.int32), *one, variant.native, whole)
            assert layer.bits == found
            assert layer.bytes == 48 * 192 * found // 8
            np.testing.assert_array_equal(sums(x, weight, bias, variant, whole), expected(x, weight, bias))

    def test_reach_is_the_largest_possible_sum(self, variant: Variant) -> None:
        weight, bias = np.array([[1, -2], [3, 3]]), np.array([-5, 4])
        one = np.ones(1, dtype=np.uint16), np.ones(1, dtype=np.uint8)
        layer = native().dense(weight.astype(np.int8), bias.astype(np.int32), *one, variant.native, False)
        assert layer.reach == 6 * 128 + 4


def test_variants_of_this_processor() -> None:
    assert Variant.PORTABLE in VARIANTS
    assert list(VARIANTS) == sorted(VARIANTS, key=list(Variant).index)
    assert choose_variant() is VARIANTS[-1]
    assert choose_variant("portable") is Variant.PORTABLE
    missing = next(v for v in Variant if v not in VARIANTS)
    with pytest.raises(InputError, match=f"variant must be one of portable.* on this processor, not '{missing}'"):
        choose_variant(missing)


def test_a_missing_module_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(loader.importlib, "import_module", gone)
    with pytest.raises(
        InputError, match="native kernels must be compiled for this Python, and it is missing; reinstall"
    ):
        variants()


def test_the_peak_is_measured_where_there_is_one() -> None:
    module = native()
    for variant in VARIANTS:
        peak = module.peak_macs_per_second(variant.native)
        assert (peak > 1e9) == (variant in (Variant.AVX512_VNNI, Variant.AMX_INT8))


def test_the_reference_agrees_with_numpy() -> None:
    rng = np.random.default_rng(0)
    x, weight, bias = rng.integers(-128, 128, (5, 70)), rng.integers(-128, 128, (9, 70)), rng.integers(-9, 9, 9)
    np.testing.assert_array_equal(f.matmul(x, weight, bias), expected(x, weight, bias))
