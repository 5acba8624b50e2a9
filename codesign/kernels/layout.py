# SPDX-License-Identifier: Apache-2.0
"""How the kernels see a weight matrix: codes in panels of 16 outputs, cells of 64 codes (docs/edge.md, section 1).

This is the reference of the layout; the C++ (kernels/src/gemm_pack.cpp) and every kernel follow it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError

Codes = npt.NDArray[np.uint8]
"""Unsigned codes of weights, one a byte, or the bytes of packed cells."""

PANEL_OUTPUTS = 16
GROUP_INPUTS = 4
CELL_CODES = PANEL_OUTPUTS * GROUP_INPUTS
INPUT_MULTIPLE = 64
"""Inputs are padded to a multiple of this: 16 cells of 8 bits are one tile of AMX."""

CELL_BITS = (1, 2, 4, 8)
OFFSET_INT8 = 128
OFFSET_TERNARY = 1
MAX_INPUTS = 8192
"""Sums are int32 and cannot wrap up to here: 255 * 128 * 8192 < 2**31."""


def padded(count: int, multiple: int) -> int:
    """`count` rounded up to a multiple."""
    return -(-count // multiple) * multiple


def codes_of(weight: npt.NDArray[np.integer], offset: int = OFFSET_INT8) -> Codes:
    """Weights [N, K] as unsigned codes `weight + offset`. Raises InputError for what does not fit 8 bits."""
    codes = weight.astype(np.int64) + offset
    if codes.size and (int(codes.min()) < 0 or int(codes.max()) > 255):
        low, high = int(codes.min()) - offset, int(codes.max()) - offset
        raise InputError(
            f"weights must lie in {-offset}..{255 - offset} for codes of offset {offset}, not {low}..{high};"
            " choose another offset"
        )
    return codes.astype(np.uint8)


def pack_codes(codes: Codes, bits: int, padding: int) -> Codes:
    """Codes [N, K] of `bits` bits each as cells [panels, groups, 8 * bits].

    N is padded to 16 and K to 64 with `padding`: the code of weight 0 (of a level: its digit of that code).
    Raises InputError for a number of bits that no cell has, for codes that need more, and for no or too many inputs.
    """
    if bits not in CELL_BITS:
        raise InputError(f"bits must be one of {', '.join(map(str, CELL_BITS))}, not {bits}; choose one of those")
    if codes.ndim != 2 or codes.dtype != np.uint8:
        raise InputError(f"codes must be a uint8 matrix, not {codes.dtype} {list(codes.shape)}; use codes_of")
    if max(int(codes.max(initial=0)), padding) >> bits or padding < 0:
        raise InputError(f"codes and padding must fit {bits} bits, not {codes.max(initial=0)} and {padding}; mask them")
    outputs, inputs = codes.shape
    if outputs < 1 or not 1 <= inputs <= MAX_INPUTS:
        raise InputError(
            f"weights must have outputs and 1..{MAX_INPUTS} inputs, not {[outputs, inputs]}; split the layer"
        )
    whole = np.full((padded(outputs, PANEL_OUTPUTS), padded(inputs, INPUT_MULTIPLE)), padding, dtype=np.uint8)
    whole[:outputs, :inputs] = codes
    panels, groups = whole.shape[0] // PANEL_OUTPUTS, whole.shape[1] // GROUP_INPUTS
    cells = whole.reshape(panels, PANEL_OUTPUTS, groups, GROUP_INPUTS).transpose(0, 2, 1, 3)
    parts = cells.reshape(panels, groups, 8 // bits, 8 * bits)
    packed = np.zeros((panels, groups, 8 * bits), dtype=np.uint8)
    for i in range(8 // bits):
        packed |= parts[:, :, i] << (i * bits)
    return packed


def unpack_codes(cells: Codes, bits: int, outputs: int, inputs: int) -> Codes:
    """The codes [outputs, inputs] that `pack_codes` packed into `cells` [panels, groups, 8 * bits].

    Raises InputError when the cells are not of that shape.
    """
    panels, groups = padded(outputs, PANEL_OUTPUTS) // PANEL_OUTPUTS, padded(inputs, INPUT_MULTIPLE) // GROUP_INPUTS
    if bits not in CELL_BITS or cells.dtype != np.uint8 or cells.shape != (panels, groups, 8 * bits):
        raise InputError(
            f"cells must be uint8 [{panels}, {groups}, 8 * bits] with bits 1, 2, 4 or 8 for {outputs} outputs and"
            f" {inputs} inputs, not {cells.dtype} {list(cells.shape)} with {bits} bits; pack them with pack_codes"
        )
    mask = (1 << bits) - 1
    parts = np.stack([(cells >> (i * bits)) & mask for i in range(8 // bits)], axis=2)
    whole = parts.reshape(panels, groups, PANEL_OUTPUTS, GROUP_INPUTS).transpose(0, 2, 1, 3)
    return whole.reshape(panels * PANEL_OUTPUTS, groups * GROUP_INPUTS)[:outputs, :inputs].astype(np.uint8)
