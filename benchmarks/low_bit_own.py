# SPDX-License-Identifier: Apache-2.0
"""Our layers with weights of few bits, as benchmarks/low_bit_gemm.py times them, and what they must compute.

Codes are random; cells lie at multiples of 64 bytes, as in the store (docs/edge.md, section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from low_bit_peers import Layer, Run

from codesign.kernels.layout import pack_codes
from codesign.kernels.levels import (
    NESTED,
    Level,
    LevelWeight,
    Rescale,
    ResidualWeight,
    prepare_linear,
    prepare_residual,
    width_offset,
)
from codesign.kernels.native import Variant, native
from codesign.kernels.trits import TERNARY_CELL_BYTES, TRIT_CELL_BYTES, pack_trits
from codesign.reference.experts import RESIDUAL_GROUP, residual_matmul
from codesign.spec.moe import RESIDUAL_MULTIPLIER_MAX

Bytes = npt.NDArray[np.uint8]
Check = Callable[[], bool]
Prepared = tuple[Run, Check]
_SCALE = 2.0**-12
_LINE = 64


@dataclass(frozen=True)
class Own:
    """One of our formats. `make`: (layer, copies, variant) to (rows to one call, and whether it computed right)."""

    name: str
    bits: float
    includes: str
    weight_bytes: Callable[[Layer], int]
    """Codes, multipliers and scales of a layer (no bias: peers have none)."""
    make: Callable[[Layer, int, Variant], Callable[[int], Prepared]]
    leads: bool = True
    """It must be ahead of every peer of as many bits or more."""


def aligned(array: Bytes) -> Bytes:
    """A copy that begins at a cache line."""
    memory = np.empty(array.nbytes + _LINE, dtype=np.uint8)
    start = -memory.ctypes.data % _LINE
    copy = memory[start : start + array.nbytes].reshape(array.shape)
    copy[...] = array
    return copy


def _input(rng: np.random.Generator, rows: int, layer: Layer) -> npt.NDArray[np.int8]:
    return rng.integers(-128, 128, (rows, layer.inputs), dtype=np.int8)


def _digits(rng: np.random.Generator, layer: Layer, most: int) -> Bytes:
    return rng.integers(0, most, (layer.outputs, layer.inputs), dtype=np.uint8)


def _rescale(layer: Layer) -> Rescale:
    return Rescale(np.zeros(layer.outputs, np.int32), np.full(layer.outputs, _SCALE, np.float32))


def _matches(y: npt.NDArray[np.int8], x: npt.NDArray[np.int8], weight: npt.NDArray[np.float64]) -> bool:
    """The last layer's y. Sums stay below 2^53, so that products in double are exact."""
    want = np.clip(np.floor(x.astype(np.float64) @ weight.T * _SCALE + 0.5), -128, 127)
    return bool(np.array_equal(y, want))


def of_levels(
    levels: tuple[tuple[int, int], ...], offset: int
) -> Callable[[Layer, int, Variant], Callable[[int], Prepared]]:
    """Weights in levels of (bits, position)."""

    def make(layer: Layer, copies: int, variant: Variant) -> Callable[[int], Prepared]:
        rng = np.random.default_rng(0)
        weights = []
        codes = np.zeros((layer.outputs, layer.inputs))
        for _ in range(copies):
            digits = [(_digits(rng, layer, 1 << bits), bits, at) for bits, at in levels]
            cells = tuple(Level(aligned(pack_codes(d, bits, 0)), bits, at) for d, bits, at in digits)
            weights.append(LevelWeight(layer.outputs, layer.inputs, cells, offset))
            codes = sum((d.astype(np.float64) * (1 << at) for d, _, at in digits), np.zeros(()))

        def with_rows(rows: int) -> Prepared:
            x, y = _input(rng, rows, layer), np.empty((1, rows, layer.outputs), dtype=np.int8)
            run = prepare_linear(weights, x, _rescale(layer), y, variant)
            return run, lambda: _matches(y[0], x, codes + offset)

        return with_rows

    return make


def trits(layer: Layer, copies: int, variant: Variant) -> Callable[[int], Prepared]:
    """Ternary weights in the cold format, made into cells of 2 bits anew before each product."""
    rng = np.random.default_rng(0)
    codes = [_digits(rng, layer, 3) for _ in range(copies)]
    packed = aligned(np.stack([pack_trits(pack_codes(c, 2, 1)) for c in codes]))
    cells = aligned(np.zeros((*packed.shape[:-1], TERNARY_CELL_BYTES), dtype=np.uint8))
    weights = [LevelWeight(layer.outputs, layer.inputs, (Level(one, 2, 0),), -1) for one in cells]
    decode, native_variant = native().decode_trits, variant.native

    def with_rows(rows: int) -> Prepared:
        x, y = _input(rng, rows, layer), np.empty((1, rows, layer.outputs), dtype=np.int8)
        product = prepare_linear(weights, x, _rescale(layer), y, variant)

        def run() -> None:
            decode(native_variant, packed, cells)
            product()

        return run, lambda: _matches(y[0], x, codes[-1].astype(np.float64) - 1)

    return with_rows


def residual(planes: int) -> Callable[[Layer, int, Variant], Callable[[int], Prepared]]:
    """D2MoE's base of 2 bits and `planes` planes, with random multipliers."""

    def make(layer: Layer, copies: int, variant: Variant) -> Callable[[int], Prepared]:
        rng = np.random.default_rng(0)
        shape = (-(-layer.inputs // RESIDUAL_GROUP), layer.outputs)
        weights, last = [], None
        for _ in range(copies):
            base, bits = _digits(rng, layer, 4), [_digits(rng, layer, 2) for _ in range(planes)]
            a, *others = (
                rng.integers(-RESIDUAL_MULTIPLIER_MAX, RESIDUAL_MULTIPLIER_MAX + 1, shape, dtype=np.int16)
                for _ in range(planes + 1)
            )
            zero = rng.integers(0, 3 * RESIDUAL_MULTIPLIER_MAX + 1, shape, dtype=np.int32)
            cells, plane_cells = aligned(pack_codes(base, 2, 0)), tuple(aligned(pack_codes(b, 1, 0)) for b in bits)
            weights.append(ResidualWeight(layer.outputs, layer.inputs, cells, a, zero, plane_cells, tuple(others)))
            last = (base, a, zero, bits, others)
        assert last is not None
        reference = last

        def with_rows(rows: int) -> Prepared:
            x, acc = _input(rng, rows, layer), np.empty((rows, layer.outputs), dtype=np.int64)
            run = prepare_residual(weights, x, acc, planes, variant)
            return run, lambda: bool(np.array_equal(acc, residual_matmul(x, *reference)))

        return with_rows

    return make


def _bytes(bits: float) -> Callable[[Layer], int]:
    return lambda layer: int(layer.outputs * layer.inputs * bits / 8) + 4 * layer.outputs


def _residual_bytes(planes: int) -> Callable[[Layer], int]:
    def size(layer: Layer) -> int:
        groups = -(-layer.inputs // RESIDUAL_GROUP)
        return _bytes(2 + planes)(layer) + layer.outputs * groups * (4 + 2 * (planes + 1))

    return size


def _nested(name: str, width: int, count: int) -> Own:
    return Own(name, width, _INCLUDES, _bytes(width), of_levels(NESTED[:count], width_offset(width)))


_INCLUDES = "int8 x; requantized int8 y"
_TRIT_BITS = 2 * TRIT_CELL_BYTES / TERNARY_CELL_BYTES
_SUMS = "int8 x; int64 sums of groups of 128 times their multipliers"

OWN = (
    Own("trits, 1.6 bits", _TRIT_BITS, f"{_INCLUDES}; decoded each time", _bytes(_TRIT_BITS), trits, False),
    Own("ternary, 2 bits", 2, _INCLUDES, _bytes(2), of_levels(((2, 0),), -1)),
    _nested("nested, width 2", 2, 1),
    Own("residual, 2 bits", 2, _SUMS, _residual_bytes(0), residual(0), False),
    Own("residual, 3 bits", 3, _SUMS, _residual_bytes(1), residual(1), False),
    Own("residual, 4 bits", 4, _SUMS, _residual_bytes(2), residual(2), False),
    Own("4 bits", 4, _INCLUDES, _bytes(4), of_levels(((4, 0),), -8)),
    _nested("nested, width 4", 4, 2),
    Own("8 bits", 8, _INCLUDES, _bytes(8), of_levels(((8, 0),), -128)),
    _nested("nested, width 8", 8, 3),
)
