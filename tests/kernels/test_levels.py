# SPDX-License-Identifier: Apache-2.0
"""Every variant of the products with packed weights against the reference: the same integers, nowhere a wrap."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.kernels.layout import pack_codes
from codesign.kernels.levels import (
    NESTED,
    Level,
    LevelWeight,
    Rescale,
    level_gemm,
    pack_levels,
    prepare_linear,
    width_offset,
)
from codesign.kernels.native import Variant, variants
from codesign.reference import functions as f
from codesign.reference.experts import level_matmul
from codesign.spec import INT8, INT16, Requant
from codesign.spec.types import MAX_SHIFT

VARIANTS = variants()
SUBSETS = tuple(s for n in (1, 2, 3) for s in combinations(NESTED, n))
SHAPES = (*SUBSETS, ((8, 0),), ((2, 0),), ((1, 5),), ((4, 4), (4, 0)), ((1, 7), (1, 6), (1, 0)), ((4, 4), (2, 2)))
ROWS = (1, 2, 3, 8, 32, 33, 129)
INPUTS = (1, 4, 63, 64, 100, 192, 2048, 8192)
OUTPUTS = (1, 15, 16, 17, 384)
each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)


def digits(codes: np.ndarray, shape: Any) -> list[tuple[np.ndarray, int]]:
    return [((codes >> position) & ((1 << bits) - 1), position) for bits, position in shape]


def expected(x: np.ndarray, codes: np.ndarray, shape: Any, offset: int) -> np.ndarray:
    """`level_matmul`, by a product in double where that is much faster; both are exact (|sum| < 2^53)."""
    if x.shape[0] * codes.size < 1 << 22:
        return level_matmul(x, digits(codes, shape), offset)
    weight = sum(d.astype(np.float64) * (1 << p) for d, p in digits(codes, shape)) + offset
    return (x.astype(np.float64) @ weight.T).astype(np.int64)


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("rows", ROWS)
def test_products_of_every_shape(rows: int, inputs: int) -> None:
    """All variants and numbers of outputs; the sets of levels take turns, so that each meets each size."""
    rng = np.random.default_rng(rows * 10000 + inputs)
    x = rng.integers(-128, 128, (rows, inputs), dtype=np.int8)
    for i, outputs in enumerate(OUTPUTS):
        if rows * inputs * outputs > 1 << 27 and outputs == 384:
            outputs = 49
        codes = rng.integers(0, 256, (outputs, inputs), dtype=np.uint8)
        for shape in SHAPES[i :: len(OUTPUTS)] if rows * inputs > 1 << 12 else SHAPES:
            weight = LevelWeight(outputs, inputs, tuple(pack_levels(codes, shape)), -128)
            want = expected(x, codes, shape, -128)
            for variant in VARIANTS:
                if variant is Variant.PORTABLE and rows * inputs * outputs > 1 << 24:
                    continue  # slow; covered by the smaller ones
                np.testing.assert_array_equal(weight.gemm(x, variant=variant), want, err_msg=f"{shape} {variant}")


@each_variant
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_extremes_do_not_wrap(variant: Any, shape: Any, rows: int) -> None:
    inputs = 8192
    for code in (0, 255, 128):
        codes = np.full((17, inputs), code, dtype=np.uint8)
        weight = LevelWeight(17, inputs, tuple(pack_levels(codes, shape)), -128)
        bare = LevelWeight(17, inputs, weight.levels, 0)
        for value in (-128, 127):
            x = np.full((rows, inputs), value, dtype=np.int8)
            code_read = sum(int(d[0, 0]) << p for d, p in digits(codes[:1, :1], shape))
            assert (weight.gemm(x, variant=variant) == inputs * value * (code_read - 128)).all()
            assert (bare.gemm(x, variant=variant) == inputs * value * code_read).all()


@each_variant
def test_extremes_of_either_sign_side_by_side(variant: Any) -> None:
    """Pairs whose 16-bit sum would saturate, in every alignment."""
    inputs = 192
    x = np.tile(np.array([127, 127, -128, -128, -128, 127, 127, -128], dtype=np.int8), (5, inputs // 8))
    codes = np.tile(np.array([255, 255, 255, 255, 0, 255, 127, 128], dtype=np.uint8), (33, inputs // 8))
    for shape in SHAPES:
        weight = LevelWeight(33, inputs, tuple(pack_levels(codes, shape)), -128)
        np.testing.assert_array_equal(weight.gemm(x, variant=variant), expected(x, codes, shape, -128))


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 70),
    inputs=st.integers(1, 300),
    outputs=st.integers(1, 70),
    shape=st.sampled_from(SHAPES),
    offset=st.integers(-255, 255),
    seed=st.integers(0, 2**32 - 1),
    extreme=st.booleans(),
)
def test_any_shape(rows: int, inputs: int, outputs: int, shape: Any, offset: int, seed: int, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.choice([-128, 127], (rows, inputs)) if extreme else rng.integers(-128, 128, (rows, inputs))
    codes = rng.integers(0, 256, (outputs, inputs), dtype=np.uint8)
    weight = LevelWeight(outputs, inputs, tuple(pack_levels(codes, shape)), offset)
    before = rng.integers(-(2**20), 2**20, (rows, outputs), dtype=np.int32)
    want = level_matmul(x, digits(codes, shape), offset)
    for variant in VARIANTS:
        acc = before.copy()
        level_gemm(x.astype(np.int8), weight, acc, accumulate=True, variant=variant)
        np.testing.assert_array_equal(acc, want + before)


@each_variant
@pytest.mark.parametrize("rows", [1, 2, 5, 40])
def test_levels_one_after_the_other(variant: Any, rows: int) -> None:
    """A width as the runtime adds it up: each level when it has come, then the correction of the width."""
    rng = np.random.default_rng(rows)
    x = rng.integers(-128, 128, (rows, 192), dtype=np.int8)
    codes = rng.integers(0, 256, (40, 192), dtype=np.uint8)
    levels = pack_levels(codes)
    for count, width in ((1, 2), (2, 4), (3, 8)):
        acc = np.zeros((rows, 40), dtype=np.int32)
        for i in range(count):
            offset = width_offset(width) if i == count - 1 else 0
            LevelWeight(40, 192, (levels[i],), offset).gemm(x, acc, accumulate=True, variant=variant)
        sliced = f.slice_planes(codes.astype(np.int64) - 128, width)
        np.testing.assert_array_equal(acc, x.astype(np.int64) @ sliced.T)


@each_variant
@pytest.mark.parametrize("rows", [1, 2, 33])
def test_ranges_of_panels_make_the_whole(variant: Any, rows: int) -> None:
    rng = np.random.default_rng(7)
    x = rng.integers(-128, 128, (rows, 100), dtype=np.int8)
    codes = rng.integers(0, 256, (90, 100), dtype=np.uint8)
    weight = LevelWeight(90, 100, tuple(pack_levels(codes)), -128)
    whole = weight.gemm(x, variant=variant)
    acc = np.full((rows, 90), -1, dtype=np.int32)
    for begin, end in ((0, 1), (1, 4), (4, 4), (4, 6)):
        weight.gemm(x, acc, variant=variant, panels=(begin, end))
        assert (acc[:, end * 16 :] == -1).all()
    np.testing.assert_array_equal(acc, whole)


@each_variant
def test_more_rows_than_a_block(variant: Any) -> None:
    rng = np.random.default_rng(8)
    x = rng.integers(-128, 128, (600, 70), dtype=np.int8)
    codes = rng.integers(0, 256, (20, 70), dtype=np.uint8)
    weight = LevelWeight(20, 70, tuple(pack_levels(codes)), -128)
    np.testing.assert_array_equal(
        weight.gemm(x, variant=variant), x.astype(np.int64) @ (codes.astype(np.int64) - 128).T
    )


@each_variant
@pytest.mark.parametrize("rows", [1, 2, 6, 35])
@pytest.mark.parametrize("outputs", [16, 45])
@pytest.mark.parametrize("shape", [((8, 0),), NESTED, ((4, 4), (4, 0))], ids=str)
def test_whole_layers(variant: Any, rows: int, outputs: int, shape: Any) -> None:
    rng = np.random.default_rng(outputs + rows)
    x = rng.integers(-128, 128, (rows, 192), dtype=np.int8)
    codes = rng.integers(0, 256, (outputs, 192), dtype=np.uint8)
    bias = rng.integers(-(2**20), 2**20, outputs, dtype=np.int64)
    weight = LevelWeight(outputs, 192, tuple(pack_levels(codes, shape)), -128)
    for shift in (1, 8, 24, 30, MAX_SHIFT):
        multiplier = rng.integers(0, 1 << 16, outputs)
        requant = Requant(tuple(int(m) for m in multiplier), (shift,) * outputs, INT8)
        y = weight.linear(x, Rescale.of(bias, requant, outputs), variant=variant)
        acc = x.astype(np.int64) @ (codes.astype(np.int64) - 128).T + bias
        np.testing.assert_array_equal(y, f.requantize(acc, requant))


@each_variant
@pytest.mark.parametrize("shift", [1, 2, 5, 16])
def test_ties_round_up(variant: Any, shift: int) -> None:
    """One input of value 1 and a bias make every sum there is; halves fall on ties."""
    sums = np.concatenate([np.arange(-400, 400), [2**31 - 300, -(2**31) + 300]])
    weight = LevelWeight(len(sums), 1, tuple(pack_levels(np.full((len(sums), 1), 129, dtype=np.uint8))), -128)
    for multiplier in (1, 3, (1 << 16) - 1):
        requant = Requant((multiplier,), (shift,), INT8)
        rescale = Rescale.of(sums - 1, requant, len(sums))
        y = weight.linear(np.ones((3, 1), dtype=np.int8), rescale, variant=variant)
        np.testing.assert_array_equal(y, np.tile(f.requantize(sums[None], requant), (3, 1)))


@each_variant
def test_several_layers_in_one_call(variant: Any) -> None:
    rng = np.random.default_rng(9)
    x = rng.integers(-128, 128, (3, 70), dtype=np.int8)
    rescale = Rescale(rng.integers(-99, 99, 20, dtype=np.int32), np.full(20, 2.0**-9, np.float32))
    codes = rng.integers(0, 256, (4, 20, 70), dtype=np.uint8)
    weights = [LevelWeight(20, 70, tuple(pack_levels(c)), -128) for c in codes]
    each, last = np.empty((4, 3, 20), dtype=np.int8), np.empty((1, 3, 20), dtype=np.int8)
    prepare_linear(weights, x, rescale, each, variant)()
    prepare_linear(weights, x, rescale, last, variant)()
    for y, weight in zip(each, weights, strict=True):
        np.testing.assert_array_equal(y, weight.linear(x, rescale, variant=variant))
    np.testing.assert_array_equal(last[0], each[3])


WEIGHT = LevelWeight(4, 8, (Level(pack_codes(np.zeros((4, 8), np.uint8), 2, 0), 2, 6),), 0)
CELLS = WEIGHT.levels[0].cells
NOTHING = (
    np.zeros((2, 8), np.int8),
    Rescale(np.zeros(4, np.int32), np.zeros(4, np.float32)),
    np.zeros((2, 2, 4), np.int8),
)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LevelWeight(0, 8, WEIGHT.levels, 0), r"weights must have outputs and 1..8192 inputs, not \[0, 8\]"),
        (lambda: LevelWeight(4, 8193, WEIGHT.levels, 0), r"1..8192 inputs, not \[4, 8193\]"),
        (lambda: LevelWeight(4, 8, (), 0), "levels must be 1 to 3, not 0"),
        (lambda: LevelWeight(4, 8, WEIGHT.levels, -256), r"offset must be within \+-255, not -256"),
        (lambda: LevelWeight(40, 8, WEIGHT.levels, 0), r"cells must be uint8 \[3, 16, 16\].*not uint8 \[1, 16, 16\]"),
        (lambda: LevelWeight(4, 8, (Level(CELLS, 3, 0),), 0), "with 3 bits"),
        (lambda: LevelWeight(4, 8, (Level(CELLS, 2, 7),), 0), "without overlap, not 2 bits at 7"),
        (lambda: LevelWeight(4, 8, (Level(CELLS, 2, -1),), 0), "without overlap, not 2 bits at -1"),
        (lambda: LevelWeight(4, 8, (Level(CELLS, 2, 4), Level(CELLS, 2, 5)), 0), "without overlap, not 2 bits at 5"),
        (lambda: WEIGHT.gemm(np.zeros((2, 9), np.int8)), r"x must be int8 \[rows, 8\].*not int8 \[2, 9\]"),
        (lambda: WEIGHT.gemm(np.zeros((2, 8), np.uint8)), "x must be int8"),
        (lambda: WEIGHT.gemm(np.zeros((8, 2), np.int8).T), "row after row"),
        (lambda: WEIGHT.gemm(np.zeros((2, 8), np.int8), np.zeros((2, 5), np.int32)), r"writeable int32 \[2, 4\]"),
        (
            lambda: WEIGHT.gemm(np.zeros((2, 8), np.int8), panels=(0, 2)),
            r"panels must be a range within 0..1, not 0..2",
        ),
        (lambda: prepare_linear([], *NOTHING), "weights must be some of one shape, not 0"),
        (lambda: prepare_linear([WEIGHT] * 3, *NOTHING), r"y must be \[1 or 3, rows, outputs\], not \[2, 2, 4\]"),
        (lambda: width_offset(3), "width must be 2, 4 or 8, not 3"),
        (lambda: Rescale.of(np.zeros(4), Requant((1,), (1,), INT16), 4), "outputs must be int8, not"),
        (
            lambda: WEIGHT.linear(np.zeros((2, 8), np.int8), Rescale(np.zeros(3, np.int32), np.zeros(3, np.float32))),
            r"rescale must have 4 entries, bias int32 and scale float32, not int32 \[3\]",
        ),
        (
            lambda: WEIGHT.linear(np.zeros((2, 8), np.int8), Rescale(np.zeros(4, np.int32), np.zeros(4))),  # type: ignore[arg-type]
            r"rescale must have 4 entries, bias int32 and scale float32, not float64 \[4\]",
        ),
    ],
)
def test_what_is_refused(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_a_variant_of_another_processor() -> None:
    missing = set(Variant) - set(VARIANTS)  # never empty: NEON, or everything else
    with pytest.raises(InputError, match=r"variant must be one of .*portable"):
        WEIGHT.gemm(np.zeros((2, 8), np.int8), variant=missing.pop())


def test_no_rows() -> None:
    for variant in VARIANTS:
        assert WEIGHT.gemm(np.zeros((0, 8), np.int8), variant=variant).shape == (0, 4)
