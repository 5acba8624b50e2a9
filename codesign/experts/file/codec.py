# SPDX-License-Identifier: Apache-2.0
"""Between an expert's matrices and the blocks of its levels."""

from __future__ import annotations

import numpy as np

from codesign.experts.file.blocks import Bytes, MatrixPart, parts
from codesign.experts.file.store import Store
from codesign.kernels.layout import pack_codes, unpack_codes
from codesign.kernels.trits import pack_trits, unpack_trits
from codesign.reference.moe import Experts, Matrix
from codesign.spec.moe import ExpertFormat, MoeLayer


def encode_expert(layer: MoeLayer, kind: ExpertFormat, w1: Matrix, w2: Matrix) -> tuple[Bytes, ...]:
    """The block of each level."""
    return tuple(_encode_level(layer, kind, level, (w1, w2)) for level in range(len(kind.levels)))


def _encode_level(layer: MoeLayer, kind: ExpertFormat, number: int, matrices: tuple[Matrix, Matrix]) -> Bytes:
    both = parts(layer, kind, number)
    block = np.zeros(both[1].end, dtype=np.uint8)
    level = kind.levels[number]
    nothing = (kind.offset >> level.position) & ((1 << level.bits) - 1)  # the digit of weight 0
    for part, matrix in zip(both, matrices, strict=True):
        cells = pack_codes(matrix.digits[number].astype(np.uint8), level.bits, nothing)
        part.cells_of(block)[:] = pack_trits(cells) if level.trits else cells
        if matrix.multipliers is not None and matrix.zeros is not None:
            part.multipliers_of(block)[:, : part.rows] = matrix.multipliers[number].T
            if number == 0:
                part.zeros_of(block)[:, : part.rows] = matrix.zeros.T
    return block


def decode_expert(layer: MoeLayer, kind: ExpertFormat, blocks: tuple[Bytes, ...]) -> tuple[Matrix, Matrix]:
    """The matrices in an expert's blocks: what `encode_expert` was given."""
    levels = [parts(layer, kind, number) for number in range(len(kind.levels))]
    first, second = ([both[i] for both in levels] for i in (0, 1))
    return _decode(kind, first, blocks), _decode(kind, second, blocks)


def _decode(kind: ExpertFormat, levels: list[MatrixPart], blocks: tuple[Bytes, ...]) -> Matrix:
    digits = []
    for part, level, block in zip(levels, kind.levels, blocks, strict=True):
        cells = part.cells_of(block)
        whole = unpack_trits(cells) if level.trits else cells
        digits.append(unpack_codes(whole, level.bits, part.rows, part.columns).astype(np.int64))
    if kind is not ExpertFormat.RESIDUAL:
        return Matrix(tuple(digits))
    pairs = [part.multipliers_of(block).T[: part.rows] for part, block in zip(levels, blocks, strict=True)]
    zeros = levels[0].zeros_of(blocks[0]).T[: levels[0].rows]
    return Matrix(tuple(digits), np.stack(pairs).astype(np.int64), zeros.astype(np.int64))


def stored_experts(store: Store, layer: int) -> Experts:
    """The experts of a layer as the reference takes them; each is read, and checked, when it is asked for."""

    def expert(number: int) -> tuple[Matrix, Matrix]:
        blocks = tuple(store.read_block(layer, level, number) for level in range(len(store.kind.levels)))
        return decode_expert(store.layers[layer], store.kind, blocks)

    return expert
