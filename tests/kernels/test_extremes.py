# SPDX-License-Identifier: Apache-2.0
"""All-extreme products of every format and variant at up to 8,192 inputs: no accumulator may wrap or saturate."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from codesign.engines.cpu_plan import run_node
from codesign.kernels.layout import MAX_INPUTS, pack_codes
from codesign.kernels.levels import (
    NESTED,
    LevelWeight,
    Rescale,
    ResidualWeight,
    decode_trits,
    pack_levels,
    width_offset,
)
from codesign.kernels.native import Variant, variants
from codesign.kernels.trits import pack_trits
from codesign.reference.experts import RESIDUAL_GROUP, residual_matmul
from codesign.spec import INT8, LinearParams, Node, OpKind, Requant, TensorSpec
from codesign.spec.moe import RESIDUAL_MULTIPLIER_MAX

Codes = npt.NDArray[np.uint8]
Int8s = npt.NDArray[np.int8]
OUTPUTS = 33
ROWS = (1, 2, 3, 17, 33)
THREADS = (1, 2)
INPUTS = (192, MAX_INPUTS)


def signs(inputs: int) -> npt.NDArray[np.bool_]:
    """[4, inputs]: all low, all high, and both alternating one by one and in pairs."""
    k = np.arange(inputs)
    return np.stack([k < 0, k >= 0, k % 2 == 0, k // 2 % 2 == 0])


def inputs_of(rows: int, inputs: int) -> Int8s:
    """Rows of -128 and 127; each pattern of `signs` comes in turn."""
    return np.where(signs(inputs)[np.arange(rows) % 4], 127, -128).astype(np.int8)


def codes_of(inputs: int, most: int) -> Codes:
    """Codes of 0 and `most` [OUTPUTS, inputs], so that each pattern meets each of x."""
    return np.where(signs(inputs)[np.arange(OUTPUTS) // 4 % 4], most, 0).astype(np.uint8)


def in_threads(threads: int, call: Callable[[tuple[int, int]], Any]) -> None:
    """Divide the panels of 16 outputs among threads that run at the same time."""
    panels = -(-OUTPUTS // 16)
    bounds = [panels * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(call, pairwise(bounds)))


def check_levels(weight: LevelWeight, values: npt.NDArray[np.float64], variant: Variant, threads: int) -> None:
    """Sums and whole layers. Products in double are exact: |sum| < 2^53."""
    bias = np.where(np.arange(OUTPUTS) % 2 == 0, 2**30, -(2**30)).astype(np.int32)
    rescale = Rescale(bias, np.full(OUTPUTS, 2.0**-24, np.float32))
    for rows in ROWS:
        x = inputs_of(rows, weight.inputs)
        sums = x.astype(np.float64) @ values.T
        acc, y = np.zeros((rows, OUTPUTS), np.int32), np.zeros((rows, OUTPUTS), np.int8)
        in_threads(threads, lambda p, x=x, acc=acc: weight.gemm(x, acc, variant=variant, panels=p))  # type: ignore[misc]
        in_threads(threads, lambda p, x=x, y=y: weight.linear(x, rescale, y, variant=variant, panels=p))  # type: ignore[misc]
        np.testing.assert_array_equal(acc, sums)
        np.testing.assert_array_equal(y, np.clip(np.floor((sums + bias) * 2.0**-24 + 0.5), -128, 127))


each = pytest.mark.parametrize("variant", variants(), ids=str)
each_threads = pytest.mark.parametrize("threads", THREADS)
each_inputs = pytest.mark.parametrize("inputs", INPUTS)


@each
@each_threads
@each_inputs
class TestFormats:
    def test_int8(self, variant: Variant, threads: int, inputs: int) -> None:
        codes = codes_of(inputs, 255)
        weight = LevelWeight(OUTPUTS, inputs, tuple(pack_levels(codes, ((8, 0),))), -128)
        check_levels(weight, codes.astype(np.float64) - 128, variant, threads)

    @pytest.mark.parametrize(("width", "levels"), [(2, 1), (4, 2), (8, 3)])
    def test_nested(self, variant: Variant, threads: int, inputs: int, width: int, levels: int) -> None:
        codes = codes_of(inputs, 255)
        packed = tuple(pack_levels(codes, NESTED)[:levels])
        weight = LevelWeight(OUTPUTS, inputs, packed, width_offset(width))
        read = codes.astype(np.float64) // (1 << (8 - width)) * (1 << (8 - width)) + width_offset(width)
        check_levels(weight, read, variant, threads)

    def test_ternary_from_trits(self, variant: Variant, threads: int, inputs: int) -> None:
        codes = codes_of(inputs, 2)
        level = pack_levels(codes, ((2, 0),), 1)[0]
        cells = decode_trits(pack_trits(level.cells), variant)
        np.testing.assert_array_equal(cells, level.cells)
        check_levels(
            LevelWeight(OUTPUTS, inputs, (type(level)(cells, 2, 0),), -1),
            codes.astype(np.float64) - 1,
            variant,
            threads,
        )

    @pytest.mark.parametrize("planes", [0, 1, 2])
    @pytest.mark.parametrize("sign", [-1, 1])
    def test_residual(self, variant: Variant, threads: int, inputs: int, planes: int, sign: int) -> None:
        shape = (-(-inputs // RESIDUAL_GROUP), OUTPUTS)
        base, bits = codes_of(inputs, 3), codes_of(inputs, 1)
        a = np.full(shape, sign * RESIDUAL_MULTIPLIER_MAX, dtype=np.int16)
        zero = np.full(shape, 0 if sign > 0 else 3 * RESIDUAL_MULTIPLIER_MAX, dtype=np.int32)
        cells, plane = pack_codes(base, 2, 0), pack_codes(bits, 1, 0)
        weight = ResidualWeight(OUTPUTS, inputs, cells, a, zero, (plane,) * planes, (a,) * planes)
        for rows in ROWS:
            x = inputs_of(rows, inputs)
            acc = np.zeros((rows, OUTPUTS), np.int64)
            in_threads(threads, lambda p, x=x, acc=acc: weight.gemm(x, acc, variant=variant, panels=p))  # type: ignore[misc]
            np.testing.assert_array_equal(acc, residual_matmul(x, base, a, zero, [bits] * planes, [a] * planes))

    @pytest.mark.parametrize(("low", "high"), [(-1, 1), (-8, 7), (-128, 127)])
    def test_layers_of_a_graph(self, variant: Variant, threads: int, inputs: int, low: int, high: int) -> None:
        """The engine packs such weights in 2, 4 and 8 bits."""
        weight = np.where(codes_of(inputs, 1) > 0, high, low).astype(np.int64)
        requant = Requant((1,), (20,), INT8)
        for rows in ROWS:
            x = inputs_of(rows, inputs).astype(np.int64)
            node = Node(
                "layer",
                OpKind.LINEAR,
                ("x", "weight", "bias"),
                TensorSpec("y", (rows, OUTPUTS), INT8, 1.0),
                LinearParams(requant),
            )
            y = run_node(node, (x, weight, np.zeros(OUTPUTS, np.int64)), variant, threads)
            np.testing.assert_array_equal(y, np.clip((x @ weight.T + (1 << 19)) >> 20, -128, 127))
