# SPDX-License-Identifier: Apache-2.0
"""Ternary codes, five to a byte, in NumPy: the reference of the cold format (docs/edge.md, section 1).

Byte j of a cell's 13 holds codes j, j + 16, j + 32, j + 48 and, for j < 12, code 13 + j % 3 + 16 * (j // 3): so its
first four trits are byte j of the cell in 2 bits, and the fifth ones are the last three bytes.
"""

from __future__ import annotations

import numpy as np

from codesign.errors import InputError
from codesign.kernels.layout import CELL_CODES, Codes

TRIT_CELL_BYTES = 13
TERNARY_CELL_BYTES = 16
_PER_BYTE = 5
_WORTH = 3 ** np.arange(_PER_BYTE - 1, -1, -1)
_FIFTH = 12
"""Bytes of a cell that hold a fifth code."""


def _places() -> tuple[tuple[int, ...], ...]:
    """[13 bytes][5 trits]: which code; `CELL_CODES` where there is none."""
    whole = [[j + 16 * i for i in range(4)] for j in range(TRIT_CELL_BYTES)]
    fifth = [13 + j % 3 + 16 * (j // 3) if j < _FIFTH else CELL_CODES for j in range(TRIT_CELL_BYTES)]
    return tuple((*codes, last) for codes, last in zip(whole, fifth, strict=True))


_PLACES = np.array(_places())


def pack_trits(cells: Codes) -> Codes:
    """Cells of 2 bits [..., 16] as cells of trits [..., 13]. Raises InputError for other cells, and for a code 3."""
    if cells.dtype != np.uint8 or cells.ndim < 1 or cells.shape[-1] != TERNARY_CELL_BYTES:
        raise InputError(
            f"cells must be uint8 [..., {TERNARY_CELL_BYTES}], not {cells.dtype} {list(cells.shape)};"
            " pack them with pack_codes in 2 bits"
        )
    fields = [(cells >> shift) & 3 for shift in (0, 2, 4, 6)]
    codes = np.concatenate([*fields, np.zeros_like(cells[..., :1])], axis=-1)
    if int(codes.max(initial=0)) > 2:
        raise InputError("codes must be 0, 1 or 2 (ternary), not 3; keep such a level in 2 bits")
    value = codes[..., _PLACES].astype(np.int64) @ _WORTH
    packed: Codes = (-(-value * 256 // 3**_PER_BYTE)).astype(np.uint8)
    return packed


def unpack_trits(trits: Codes) -> Codes:
    """Cells of trits [..., 13] as cells of 2 bits [..., 16]. Raises InputError for cells of another shape."""
    if trits.dtype != np.uint8 or trits.ndim < 1 or trits.shape[-1] != TRIT_CELL_BYTES:
        raise InputError(
            f"trits must be uint8 [..., {TRIT_CELL_BYTES}], not {trits.dtype} {list(trits.shape)}; see pack_trits"
        )
    rest = trits.astype(np.int64)
    codes = np.zeros((*trits.shape[:-1], CELL_CODES + 1), dtype=np.uint8)
    for i in range(_PER_BYTE):
        rest *= 3
        codes[..., _PLACES[:, i]] = rest >> 8
        rest &= 255
    fields = codes[..., :CELL_CODES].reshape(*trits.shape[:-1], 4, TERNARY_CELL_BYTES)
    packed = fields[..., 0, :] | fields[..., 1, :] << 2 | fields[..., 2, :] << 4 | fields[..., 3, :] << 6
    return np.asarray(packed, dtype=np.uint8)
