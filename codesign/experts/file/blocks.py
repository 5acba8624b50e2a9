# SPDX-License-Identifier: Apache-2.0
"""What lies where in the blocks of a store: cells of both matrices, multipliers of the residual format, constants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.kernels.layout import CELL_CODES, INPUT_MULTIPLE, MAX_INPUTS, PANEL_OUTPUTS, padded
from codesign.kernels.trits import TRIT_CELL_BYTES
from codesign.spec.moe import GROUP, ExpertFormat, Level, MoeConstants, MoeLayer, Rescaling, check_residual
from codesign.spec.types import INT32, MAX_SHIFT

Bytes = npt.NDArray[np.uint8]

PAGE = 4096
"""Blocks begin at multiples of it and are zero padded to one: what O_DIRECT asks for."""
ALIGNMENT = 64
"""Within a block each matrix begins at a multiple of it: a cache line, a vector."""


@dataclass(frozen=True)
class MatrixPart:
    """Where a matrix [rows, columns] lies within a level's block.

    Byte offsets of its cells [panels, columns / 4, cell bytes] and, for the residual format, of the multipliers int16
    [groups, padded rows] and (base level only) of Z int32 [groups, padded rows]; `end` is the byte behind it.
    """

    rows: int
    columns: int
    cell_bytes: int
    cells: int
    multipliers: int
    zeros: int
    end: int

    @property
    def groups(self) -> int:
        """Groups of inputs that have multipliers of their own in the residual format."""
        return -(-self.columns // GROUP)

    @property
    def padded_rows(self) -> int:
        """Rows with the padding of the last panel."""
        return padded(self.rows, PANEL_OUTPUTS)

    @property
    def panels(self) -> int:
        """Panels of 16 outputs."""
        return self.padded_rows // PANEL_OUTPUTS

    @property
    def column_cells(self) -> int:
        """Cells of a panel."""
        return padded(self.columns, INPUT_MULTIPLE) * PANEL_OUTPUTS // CELL_CODES

    def cells_of(self, block: Bytes) -> Bytes:
        """A view of the cells in a block, [panels, column cells, cell bytes]."""
        size = self.panels * self.column_cells * self.cell_bytes
        return block[self.cells : self.cells + size].reshape(self.panels, self.column_cells, self.cell_bytes)

    def multipliers_of(self, block: Bytes) -> npt.NDArray[np.int16]:
        """A view of the residual format's A in a block, [groups, padded rows]."""
        size = 2 * self.groups * self.padded_rows
        return block[self.multipliers : self.multipliers + size].view("<i2").reshape(self.groups, self.padded_rows)

    def zeros_of(self, block: Bytes) -> npt.NDArray[np.int32]:
        """A view of the residual format's Z in a block of the base level, [groups, padded rows]."""
        size = 4 * self.groups * self.padded_rows
        return block[self.zeros : self.zeros + size].view("<i4").reshape(self.groups, self.padded_rows)


def cell_bytes(level: Level) -> int:
    """Bytes of a cell of that level in the file."""
    return TRIT_CELL_BYTES if level.trits else CELL_CODES * level.bits // 8


def parts(layer: MoeLayer, kind: ExpertFormat, level: int) -> tuple[MatrixPart, MatrixPart]:
    """Where w1 and w2 lie in a block of that level; its size is the end of the second."""
    first = _part(layer.shapes[0], kind, level, 0)
    return first, _part(layer.shapes[1], kind, level, first.end)


def block_bytes(layer: MoeLayer, kind: ExpertFormat, level: int) -> int:
    """Size of one expert's block of that level, without its padding to a page."""
    return parts(layer, kind, level)[1].end


def _part(shape: tuple[int, int], kind: ExpertFormat, level: int, start: int) -> MatrixPart:
    if shape[1] > MAX_INPUTS:
        raise InputError(f"an expert's layer must have at most {MAX_INPUTS} inputs, not {shape[1]}; split the layer")
    size = cell_bytes(kind.levels[level])
    rows, columns = padded(shape[0], PANEL_OUTPUTS), padded(shape[1], INPUT_MULTIPLE)
    multipliers = start + rows * columns // CELL_CODES * size
    groups = -(-shape[1] // GROUP) if kind is ExpertFormat.RESIDUAL else 0
    zeros = multipliers + 2 * rows * groups
    end = padded(zeros + (4 * rows * groups if level == 0 else 0), ALIGNMENT)
    return MatrixPart(shape[0], shape[1], size, start, multipliers, zeros, end)


def check_multipliers(both: tuple[MatrixPart, MatrixPart], level: int, block: Bytes) -> None:
    """Raise InputError when a block of the residual format has an A or Z that leaves `check_residual`'s limits."""
    for part in both:
        check_residual(part.multipliers_of(block), part.zeros_of(block) if level == 0 else None)


# -- constants: of both matrices bias int32, multiplier uint16 and shift uint8, each [sets, experts, rows] -----------


def constants_bytes(layer: MoeLayer, sets: int) -> int:
    """Size of a layer's block of constants, with `sets` rescalings an expert (1, or one for each width)."""
    return sets * layer.num_experts * sum(rows for rows, _ in layer.shapes) * 7


def encode_constants(constants: MoeConstants) -> bytes:
    """The block of a layer's constants: of the first matrix, then of the second, biases, multipliers and shifts."""
    both = (constants.fc1, constants.fc2)
    arrays = [*(r.bias.astype("<i4") for r in both), *(r.multiplier.astype("<u2") for r in both)]
    return b"".join(a.tobytes() for a in [*arrays, *(r.shift.astype("<u1") for r in both)])


def decode_constants(layer: MoeLayer, kind: ExpertFormat, sets: int, block: Bytes) -> MoeConstants:
    """The constants in a block. Raises InputError for a shift that no rescaling has, or a bias that could overflow."""
    shapes = [(sets, layer.num_experts, rows) for rows, _ in layer.shapes]
    arrays: list[npt.NDArray[np.integer]] = []
    at = 0
    for item in ("<i4", "<u2", "<u1"):
        for shape in shapes:
            size = int(np.prod(shape)) * int(item[-1])
            arrays.append(block[at : at + size].view(item).reshape(shape).copy())
            at += size
    b1, b2, m1, m2, s1, s2 = arrays
    made = []
    for (_, inputs), bias, multiplier, shift in zip(layer.shapes, (b1, b2), (m1, m2), (s1, s2), strict=True):
        if shift.size and not 1 <= int(shift.min()) <= int(shift.max()) <= MAX_SHIFT:
            raise InputError(
                f"shifts of layer {layer.name} must be in 1..{MAX_SHIFT}, not {shift.min()}..{shift.max()};"
                " pack the experts again"
            )
        check_bias(layer, kind, inputs, bias)
        made.append(Rescaling(bias.astype(np.int32), multiplier.astype(np.uint16), shift.astype(np.uint8)))
    return MoeConstants(*made)


def check_bias(layer: MoeLayer, kind: ExpertFormat, inputs: int, bias: npt.NDArray[np.integer]) -> None:
    """Raise InputError when a sum of `inputs` products and a bias could leave int32. The residual format has int64."""
    limit = INT32.max - (0 if kind is ExpertFormat.RESIDUAL else inputs * 128 * 128)
    largest = int(np.abs(bias.astype(np.int64)).max(initial=0))
    if largest > limit:
        raise InputError(f"biases of layer {layer.name} must be within +-{limit}, not reach {largest}; check the model")
