# SPDX-License-Identifier: Apache-2.0
"""Products with weights that stay packed in levels of bits: checks, and calls of kernels/src/levels_*.cpp.

In: int8 rows [T, K], packed cells (`codesign.kernels.layout`). Out: the integers of `codesign.reference.experts`,
whatever the variant. Sums for some of the panels of 16 outputs may be asked for alone: so do threads divide a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.kernels.layout import (
    CELL_BITS,
    INPUT_MULTIPLE,
    MAX_INPUTS,
    OFFSET_INT8,
    PANEL_OUTPUTS,
    Codes,
    pack_codes,
    padded,
)
from codesign.kernels.native import Variant, choose_variant, native
from codesign.kernels.trits import TERNARY_CELL_BYTES, TRIT_CELL_BYTES
from codesign.reference.experts import RESIDUAL_GROUP
from codesign.spec.moe import check_residual
from codesign.spec.types import INT8, Requant

Int8s = npt.NDArray[np.int8]
Int32s = npt.NDArray[np.int32]

NESTED = ((2, 6), (2, 4), (4, 0))
"""Bits and position of the levels of a nested int8 weight."""
MAX_LEVELS = 3
MAX_PLANES = 2
_MAX_OFFSET = 255


def width_offset(width: int) -> int:
    """What a nested weight read at `width` bits (2, 4 or 8) adds to its code: the middle of the interval, less 128."""
    if width not in (2, 4, 8):
        raise InputError(f"width must be 2, 4 or 8, not {width}; choose one of those")
    return ((1 << (8 - width)) >> 1) - OFFSET_INT8


@dataclass(frozen=True)
class Level:
    """Digits of `bits` bits at bit `position` of the code, packed by `pack_codes`."""

    cells: Codes
    bits: int
    position: int = 0


def pack_levels(codes: Codes, shape: Sequence[tuple[int, int]] = NESTED, padding: int = OFFSET_INT8) -> list[Level]:
    """Codes [N, K] as levels of (bits, position). `padding`: the code of weight 0."""
    levels = []
    for bits, position in shape:
        mask = (1 << bits) - 1
        digits = ((codes >> position) & mask).astype(np.uint8)
        levels.append(Level(pack_codes(digits, bits, (padding >> position) & mask), bits, position))
    return levels


@dataclass(frozen=True)
class Rescale:
    """Bias and requantization of a layer to int8, as the kernels take them: [outputs] each."""

    bias: Int32s
    scale: npt.NDArray[np.float32]

    @staticmethod
    def of(bias: npt.NDArray[np.integer], requant: Requant, outputs: int) -> Rescale:
        """From the graph's integers: scale = multiplier * 2^-shift, which a float32 holds exactly."""
        if requant.out_type != INT8:
            raise InputError(f"outputs must be int8, not {requant.out_type}; take the sums and requantize them")
        scale = np.ldexp(np.array(requant.multiplier, dtype=np.float64), -np.array(requant.shift))
        return Rescale(
            np.ascontiguousarray(np.broadcast_to(bias, outputs), dtype=np.int32),
            np.ascontiguousarray(np.broadcast_to(scale, outputs), dtype=np.float32),
        )


@dataclass(frozen=True)
class LevelWeight:
    """Up to three levels of a weight [outputs, inputs]; `offset` is added to every code (-128: int8, -1: ternary)."""

    outputs: int
    inputs: int
    levels: tuple[Level, ...]
    offset: int
    _native: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_shape(self.outputs, self.inputs)
        if not 1 <= len(self.levels) <= MAX_LEVELS:
            raise InputError(f"levels must be 1 to {MAX_LEVELS}, not {len(self.levels)}; leave out what is not read")
        if abs(self.offset) > _MAX_OFFSET:
            raise InputError(f"offset must be within +-{_MAX_OFFSET}, not {self.offset}; codes have 8 bits")
        taken = 0
        for level in self.levels:
            _check_cells(level.cells, level.bits, self.outputs, self.inputs)
            mask = ((1 << level.bits) - 1) << level.position if level.position >= 0 else -1
            if not 0 < mask < 1 << 8 or taken & mask:
                raise InputError(
                    f"levels must lie in 8 bits without overlap, not {level.bits} bits at {level.position};"
                    " see docs/edge.md, section 1"
                )
            taken |= mask
        order = sorted(self.levels, key=lambda level: -level.position)
        arrays = [(level.cells, level.bits, level.position) for level in order]
        object.__setattr__(self, "_native", native().Levels(self.outputs, self.inputs, self.offset, arrays))

    @property
    def panels(self) -> int:
        """Panels of 16 outputs."""
        return -(-self.outputs // PANEL_OUTPUTS)

    @property
    def bytes(self) -> int:
        """Bytes of the levels."""
        return sum(level.cells.nbytes for level in self.levels)

    def gemm(
        self,
        x: Int8s,
        acc: Int32s | None = None,
        *,
        accumulate: bool = False,
        variant: Variant | None = None,
        panels: tuple[int, int] | None = None,
    ) -> Int32s:
        """Sums x [T, K] . w -> [T, N], stored into `acc` or added to it; only the outputs of `panels` where given.

        Raises InputError for arrays of another shape or type, or that do not lie in memory row after row.
        """
        begin, end = _check_panels(panels, self.panels)
        out = _output(x, acc, self.outputs, self.inputs, np.dtype(np.int32), accumulate, begin > 0 or end < self.panels)
        self._native.gemm(_variant(variant), x, out, accumulate, begin, end)
        return out

    def linear(
        self,
        x: Int8s,
        rescale: Rescale,
        y: Int8s | None = None,
        *,
        variant: Variant | None = None,
        panels: tuple[int, int] | None = None,
    ) -> Int8s:
        """A layer x [T, K] -> y int8 [T, N]: floor((sum + bias) * scale + 0.5), clamped. |sum + bias| < 2^31.

        Raises InputError as `gemm`.
        """
        begin, end = _check_panels(panels, self.panels)
        out = _output(x, y, self.outputs, self.inputs, np.dtype(np.int8), False, begin > 0 or end < self.panels)
        _check_rescale(rescale, self.outputs)
        self._native.linear(_variant(variant), x, rescale.bias, rescale.scale, out, begin, end)
        return out


def level_gemm(x: Int8s, weight: LevelWeight, acc: Int32s | None = None, **options: Any) -> Int32s:
    """`weight.gemm(x, acc, ...)`."""
    return weight.gemm(x, acc, **options)


def prepare_linear(
    weights: Sequence[LevelWeight], x: Int8s, rescale: Rescale, y: npt.NDArray[np.int8], variant: Variant | None = None
) -> Callable[[], None]:
    """A call that takes the rows x [T, K] through several layers of one shape, to y int8 [layers, T, N].

    A `y` of [1, T, N] serves all layers in turn, and keeps the last one's. The call reads x, and writes y, as they then
    are, without further checks. Raises InputError as `LevelWeight.linear`.
    """
    if not weights or len({(w.outputs, w.inputs) for w in weights}) != 1:
        raise InputError(f"weights must be some of one shape, not {len(weights)} that differ; call each by itself")
    if y.ndim != 3 or len(y) not in (1, len(weights)):
        raise InputError(
            f"y must be [1 or {len(weights)}, rows, outputs], not {list(y.shape)}; see the rows and layers"
        )
    _output(x, y[0], weights[0].outputs, weights[0].inputs, np.dtype(np.int8), False, False)
    _check_rescale(rescale, weights[0].outputs)
    layers, chosen, call = [w._native for w in weights], _variant(variant), native().linear_each
    return lambda: call(layers, chosen, x, rescale.bias, rescale.scale, y)


@dataclass(frozen=True)
class ResidualWeight:
    """D2MoE's format: a base of 2 bits and up to two planes of 1 bit; multipliers and `zero` [groups, outputs].

    Raises InputError for shapes or types that do not fit, or multipliers beyond `check_residual`'s limits.
    """

    outputs: int
    inputs: int
    base: Codes
    multiplier: npt.NDArray[np.int16]
    zero: Int32s
    planes: tuple[Codes, ...] = ()
    plane_multipliers: tuple[npt.NDArray[np.int16], ...] = ()
    _native: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_shape(self.outputs, self.inputs)
        if len(self.planes) != len(self.plane_multipliers) or len(self.planes) > MAX_PLANES:
            raise InputError(
                f"planes must be at most {MAX_PLANES} with multipliers each, not {len(self.planes)} with"
                f" {len(self.plane_multipliers)}; pack them again"
            )
        _check_cells(self.base, 2, self.outputs, self.inputs)
        for plane in self.planes:
            _check_cells(plane, 1, self.outputs, self.inputs)
        shape = (-(-self.inputs // RESIDUAL_GROUP), self.outputs)
        arrays: tuple[npt.NDArray[np.integer[Any]], ...] = (self.multiplier, self.zero, *self.plane_multipliers)
        for array in arrays:
            dtype = np.int32 if array is self.zero else np.int16
            if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
                raise InputError(
                    f"multipliers must be int16 (zero: int32) {list(shape)}, row after row, not {array.dtype}"
                    f" {list(array.shape)}; one for each group of {RESIDUAL_GROUP} inputs and output"
                )
        check_residual(self.multiplier, self.zero)
        for multipliers in self.plane_multipliers:
            check_residual(multipliers)
        planes = list(zip(self.planes, self.plane_multipliers, strict=True))
        made = native().Residual(self.outputs, self.inputs, self.base, self.multiplier, self.zero, planes)
        object.__setattr__(self, "_native", made)

    def gemm(
        self,
        x: Int8s,
        acc: npt.NDArray[np.int64] | None = None,
        *,
        planes: int | None = None,
        accumulate: bool = False,
        variant: Variant | None = None,
        panels: tuple[int, int] | None = None,
    ) -> npt.NDArray[np.int64]:
        """Sums [T, N] with the base and the first `planes` planes (all of them by default), in int64.

        Raises InputError as `LevelWeight.gemm`, and for planes that are not there.
        """
        count = len(self.planes) if planes is None else planes
        if not 0 <= count <= len(self.planes):
            raise InputError(f"planes must be in 0..{len(self.planes)}, not {count}; read what was packed")
        whole = -(-self.outputs // PANEL_OUTPUTS)
        begin, end = _check_panels(panels, whole)
        partial = begin > 0 or end < whole
        out = _output(x, acc, self.outputs, self.inputs, np.dtype(np.int64), accumulate, partial)
        self._native.gemm(_variant(variant), x, out, accumulate, count, begin, end)
        return out


def prepare_residual(
    weights: Sequence[ResidualWeight],
    x: Int8s,
    acc: npt.NDArray[np.int64],
    planes: int,
    variant: Variant | None = None,
) -> Callable[[], None]:
    """A call that takes the rows x [T, K] through several layers of one shape; `acc` int64 [T, N] keeps the last sums.

    Reads `planes` planes of each. Raises InputError as `ResidualWeight.gemm`.
    """
    if not weights or len({(w.outputs, w.inputs) for w in weights}) != 1:
        raise InputError(f"weights must be some of one shape, not {len(weights)} that differ; call each by itself")
    fewest = min(len(w.planes) for w in weights)
    if not 0 <= planes <= fewest:
        raise InputError(f"planes must be in 0..{fewest}, not {planes}; read what was packed")
    _output(x, acc, weights[0].outputs, weights[0].inputs, np.dtype(np.int64), False, False)
    layers, chosen, call = [w._native for w in weights], _variant(variant), native().residual_each
    return lambda: call(layers, chosen, x, acc, planes)


def decode_trits(trits: Codes, variant: Variant | None = None) -> Codes:
    """Cells of trits [..., 13] as cells of 2 bits [..., 16] (`unpack_trits`, natively)."""
    if trits.dtype != np.uint8 or trits.ndim < 1 or trits.shape[-1] != TRIT_CELL_BYTES or not trits.flags.c_contiguous:
        raise InputError(
            f"trits must be uint8 [..., {TRIT_CELL_BYTES}], row after row, not {trits.dtype} {list(trits.shape)};"
            " pack them with pack_trits"
        )
    cells = np.empty((*trits.shape[:-1], TERNARY_CELL_BYTES), dtype=np.uint8)
    native().decode_trits(_variant(variant), trits, cells)
    return cells


def _variant(variant: Variant | None) -> Any:
    return native().best_variant() if variant is None else choose_variant(variant).native


def _check_shape(outputs: int, inputs: int) -> None:
    if outputs < 1 or not 1 <= inputs <= MAX_INPUTS:
        raise InputError(f"weights must have outputs and 1..{MAX_INPUTS} inputs, not {[outputs, inputs]}; split them")


def _check_cells(cells: Codes, bits: int, outputs: int, inputs: int) -> None:
    shape = (padded(outputs, PANEL_OUTPUTS) // PANEL_OUTPUTS, padded(inputs, INPUT_MULTIPLE) // 4, 8 * bits)
    if bits not in CELL_BITS or cells.dtype != np.uint8 or cells.shape != shape or not cells.flags.c_contiguous:
        raise InputError(
            f"cells must be uint8 {list(shape)}, row after row, with bits 1, 2, 4 or 8, not {cells.dtype}"
            f" {list(cells.shape)} with {bits} bits; pack them with pack_codes"
        )


def _check_rescale(rescale: Rescale, outputs: int) -> None:
    for array, dtype in ((rescale.bias, np.int32), (rescale.scale, np.float32)):
        if array.shape != (outputs,) or array.dtype != dtype:
            raise InputError(
                f"rescale must have {outputs} entries, bias int32 and scale float32, not {array.dtype}"
                f" {list(array.shape)}; use Rescale.of"
            )


def _check_panels(panels: tuple[int, int] | None, count: int) -> tuple[int, int]:
    begin, end = (0, count) if panels is None else panels
    if not 0 <= begin <= end <= count:
        raise InputError(f"panels must be a range within 0..{count}, not {begin}..{end}; divide those there are")
    return begin, end


def _output(
    x: Int8s, out: Any, outputs: int, inputs: int, dtype: np.dtype[Any], accumulate: bool, partial: bool
) -> npt.NDArray[Any]:
    if x.dtype != np.int8 or x.ndim != 2 or x.shape[1] != inputs or not x.flags.c_contiguous:
        raise InputError(
            f"x must be int8 [rows, {inputs}], row after row, not {x.dtype} {list(x.shape)};"
            " use numpy.ascontiguousarray"
        )
    if out is None:
        if accumulate or partial:
            return np.zeros((len(x), outputs), dtype=dtype)
        return np.empty((len(x), outputs), dtype=dtype)
    if out.dtype != dtype or out.shape != (len(x), outputs) or not out.flags.c_contiguous or not out.flags.writeable:
        raise InputError(
            f"the output must be writeable {dtype} [{len(x)}, {outputs}], row after row, not {out.dtype}"
            f" {list(out.shape)}; leave it out to get a new one"
        )
    return np.asarray(out)
