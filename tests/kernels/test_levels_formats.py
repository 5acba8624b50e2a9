# SPDX-License-Identifier: Apache-2.0
"""The cold ternary format and the residual format, every variant against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.kernels.layout import codes_of, pack_codes
from codesign.kernels.levels import ResidualWeight, decode_trits, prepare_residual
from codesign.kernels.native import variants
from codesign.kernels.trits import TRIT_CELL_BYTES, pack_trits, unpack_trits
from codesign.reference.experts import RESIDUAL_GROUP, residual_matmul
from codesign.spec.moe import RESIDUAL_MULTIPLIER_MAX

VARIANTS = variants()
each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)


@settings(max_examples=60, deadline=None)
@given(outputs=st.integers(1, 40), inputs=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
def test_trits_and_back(outputs: int, inputs: int, seed: int) -> None:
    weight = np.random.default_rng(seed).integers(-1, 2, (outputs, inputs), dtype=np.int8)
    cells = pack_codes(codes_of(weight, 1), 2, 1)
    trits = pack_trits(cells)
    assert trits.shape == (*cells.shape[:-1], TRIT_CELL_BYTES)
    np.testing.assert_array_equal(unpack_trits(trits), cells)
    for variant in VARIANTS:
        np.testing.assert_array_equal(decode_trits(trits, variant), cells)


@each_variant
def test_every_byte_decodes_alike(variant: Any) -> None:
    """All 256 values in all 13 places, bytes that no packing makes included."""
    trits = np.tile(np.arange(256, dtype=np.uint8)[:, None], (1, TRIT_CELL_BYTES))
    rng = np.random.default_rng(0)
    mixed = rng.integers(0, 256, (1001, TRIT_CELL_BYTES), dtype=np.uint8)
    for case in (trits, mixed, mixed[:1], mixed[:3], mixed[:5]):
        np.testing.assert_array_equal(decode_trits(case, variant), unpack_trits(case))


def test_where_each_trit_lies() -> None:
    """A byte is ceil(256 v / 243), v in base 3 from its first code; byte j: codes j, j + 16, j + 32, j + 48, fifth."""
    for code in range(64):
        codes = np.zeros((16, 64), dtype=np.uint8)
        codes[code // 4, code % 4] = 2
        packed = pack_trits(pack_codes(codes, 2, 0))[0, 0]
        lane, field = code % 16, code // 16
        byte, trit = (lane, field) if lane < 13 else (lane - 13 + 3 * field, 4)
        want = np.zeros(13, dtype=np.uint8)
        want[byte] = -(-2 * 3 ** (4 - trit) * 256 // 243)
        np.testing.assert_array_equal(packed, want)


def test_what_trits_refuse() -> None:
    with pytest.raises(InputError, match="codes must be 0, 1 or 2"):
        pack_trits(np.full((1, 1, 16), 3, dtype=np.uint8))
    with pytest.raises(InputError, match=r"cells must be uint8 \[..., 16\], not uint8 \[1, 13\]"):
        pack_trits(np.zeros((1, 13), dtype=np.uint8))
    for decode in (unpack_trits, decode_trits):
        with pytest.raises(InputError, match=r"trits must be uint8 \[..., 13\].*not uint8 \[1, 16\]"):
            decode(np.zeros((1, 16), dtype=np.uint8))


def residual(
    rng: np.random.Generator, outputs: int, inputs: int, planes: int, extreme: int | None = None
) -> tuple[ResidualWeight, tuple[Any, ...]]:
    """A weight and the reference's arguments after x. `extreme`: every multiplier at that limit."""
    groups = -(-inputs // RESIDUAL_GROUP)
    base = rng.integers(0, 4, (outputs, inputs), dtype=np.uint8)
    bits = [rng.integers(0, 2, (outputs, inputs), dtype=np.uint8) for _ in range(planes)]
    if extreme is None:
        multiplier, *others = (
            rng.integers(-RESIDUAL_MULTIPLIER_MAX, RESIDUAL_MULTIPLIER_MAX + 1, (groups, outputs), dtype=np.int16)
            for _ in range(planes + 1)
        )
        zero = rng.integers(0, 3 * RESIDUAL_MULTIPLIER_MAX + 1, (groups, outputs), dtype=np.int32)
    else:
        base, bits = np.full_like(base, 3), [np.ones_like(b) for b in bits]
        limit = np.full((groups, outputs), extreme * RESIDUAL_MULTIPLIER_MAX, dtype=np.int16)
        multiplier, others = limit, [limit] * planes
        zero = np.full((groups, outputs), 0 if extreme > 0 else 3 * RESIDUAL_MULTIPLIER_MAX, dtype=np.int32)
    weight = ResidualWeight(
        outputs,
        inputs,
        pack_codes(base, 2, 0),
        multiplier,
        zero,
        tuple(pack_codes(b, 1, 0) for b in bits),
        tuple(others),
    )
    return weight, (base, multiplier, zero, bits, others)


@pytest.mark.parametrize("planes", [0, 1, 2])
@pytest.mark.parametrize("inputs", [1, 63, 64, 100, 128, 192, 1000, 2048])
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 33])
def test_residual_products(rows: int, inputs: int, planes: int) -> None:
    rng = np.random.default_rng(rows + inputs + planes)
    x = rng.integers(-128, 128, (rows, inputs), dtype=np.int8)
    for outputs in (1, 15, 16, 17, 50):
        weight, rest = residual(rng, outputs, inputs, planes)
        want = residual_matmul(x, *rest)
        for variant in VARIANTS:
            np.testing.assert_array_equal(weight.gemm(x, variant=variant), want)


@each_variant
@pytest.mark.parametrize("extreme", [-1, 1])
@pytest.mark.parametrize("value", [-128, 127])
@pytest.mark.parametrize("rows", [5, 20])
def test_residual_extremes(variant: Any, rows: int, extreme: int, value: int) -> None:
    weight, rest = residual(np.random.default_rng(0), 17, 8192, 2, extreme)
    x = np.full((rows, 8192), value, dtype=np.int8)
    np.testing.assert_array_equal(weight.gemm(x, variant=variant), residual_matmul(x, *rest))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 20),
    inputs=st.integers(1, 400),
    outputs=st.integers(1, 50),
    planes=st.integers(0, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_residual_shape(rows: int, inputs: int, outputs: int, planes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.choice(np.array([-128, -1, 0, 1, 127], dtype=np.int8), (rows, inputs))
    weight, (base, a, z, bits, others) = residual(rng, outputs, inputs, 2)
    before = rng.integers(-(2**40), 2**40, (rows, outputs))
    want = residual_matmul(x, base, a, z, bits[:planes], others[:planes]) + before
    whole = -(-outputs // 16)
    for variant in VARIANTS:
        acc = before.copy()
        for panels in ((0, whole // 2), (whole // 2, whole)):
            weight.gemm(x, acc, planes=planes, accumulate=True, variant=variant, panels=panels)
        np.testing.assert_array_equal(acc, want)


@each_variant
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_several_residual_layers_in_one_call(variant: Any, rows: int) -> None:
    rng = np.random.default_rng(rows)
    x, acc = rng.integers(-128, 128, (rows, 200), dtype=np.int8), np.empty((rows, 40), dtype=np.int64)
    weights = [residual(rng, 40, 200, 2)[0] for _ in range(3)]
    for planes in (0, 1, 2):
        prepare_residual(weights, x, acc, planes, variant)()
        np.testing.assert_array_equal(acc, weights[-1].gemm(x, planes=planes, variant=variant))


def test_what_several_residual_layers_refuse() -> None:
    weight, _ = residual(np.random.default_rng(0), 16, 130, 1)
    other, _ = residual(np.random.default_rng(0), 17, 130, 1)
    x, acc = np.zeros((1, 130), np.int8), np.zeros((1, 16), np.int64)
    with pytest.raises(InputError, match="weights must be some of one shape, not 2 that differ"):
        prepare_residual([weight, other], x, acc, 1)
    with pytest.raises(InputError, match=r"planes must be in 0..1, not 2; read what was packed"):
        prepare_residual([weight], x, acc, 2)
    with pytest.raises(InputError, match=r"the output must be writeable int64 \[1, 16\]"):
        prepare_residual([weight], x, acc[:, :15], 1)


def test_what_residual_weights_refuse() -> None:
    weight, _ = residual(np.random.default_rng(0), 16, 130, 1)
    with pytest.raises(InputError, match=r"planes must be in 0..1, not 2"):
        weight.gemm(np.zeros((1, 130), np.int8), planes=2)
    with pytest.raises(InputError, match="planes must be at most 2 with multipliers each, not 1 with 0"):
        ResidualWeight(16, 130, weight.base, weight.multiplier, weight.zero, weight.planes)
    with pytest.raises(InputError, match=r"multipliers must be int16 \(zero: int32\) \[2, 16\]"):
        ResidualWeight(16, 130, weight.base, weight.multiplier[:1], weight.zero)
    large, below = np.full_like(weight.multiplier, 4096), np.full_like(weight.zero, -1)
    with pytest.raises(InputError, match=r"multipliers must be within \+-4095, not 4096..4096; pack the experts again"):
        ResidualWeight(16, 130, weight.base, large, weight.zero)
    with pytest.raises(InputError, match=r"multipliers must be within \+-4095, not 4096..4096; pack the experts again"):
        ResidualWeight(16, 130, weight.base, weight.multiplier, weight.zero, weight.planes, (large,))
    with pytest.raises(InputError, match=r"zeros must be in 0..12285, not -1..-1; pack the experts again"):
        ResidualWeight(16, 130, weight.base, weight.multiplier, below)
