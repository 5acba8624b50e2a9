# SPDX-License-Identifier: Apache-2.0
"""ATTENTION: the integer softmax of the spec. Scores are computed twice, for their maximum and then for its use."""

import triton
import triton.language as tl

from codesign.kernels.gpu.code import integers as f


@triton.jit
def scores(query, k, column, tokens, width, head, dim, multiplier, shift, dims: tl.constexpr):
    """Scores int32 [rows, columns] of a tile of queries int8 [rows, dims]."""
    d = tl.arange(0, dims)
    at = column.to(tl.int64)[None, :] * width + head * dim + d[:, None]
    keys = tl.load(k + at, mask=(column < tokens)[None, :] & (d < dim)[:, None], other=0)
    return f.sat16(f.rescale(tl.dot(query, keys, out_dtype=tl.int32), multiplier, shift))


@triton.jit(do_not_specialize=["tokens", "score_multiplier", "score_shift", "multiplier", "shift"])
def attention(
    q, k, v, exp2, recip, y, tokens, width, dim, score_multiplier, score_shift, multiplier, shift,
    tile: tl.constexpr, columns: tl.constexpr, dims: tl.constexpr,
):  # fmt: skip
    """A tile of queries of a head against all keys, `columns` at a time; q, k, v, y int8 [tokens, width]."""
    head = tl.program_id(1)
    row = tl.program_id(0) * tile + tl.arange(0, tile)
    d = tl.arange(0, dims)
    live = (row < tokens)[:, None] & (d < dim)[None, :]
    at = row.to(tl.int64)[:, None] * width + head * dim + d[None, :]
    query = tl.load(q + at, mask=live, other=0)
    nought = tl.full([1, 1], 0, tl.int64)
    by, places = nought + score_multiplier, nought + score_shift
    largest = tl.full([tile], -32768, tl.int32)
    for start in range(0, tokens, columns):
        column = start + tl.arange(0, columns)
        t = scores(query, k, column, tokens, width, head, dim, by, places, dims)
        largest = tl.maximum(largest, tl.max(tl.where((column < tokens)[None, :], t, -32768), 1))
    total = tl.zeros([tile], tl.int32)
    acc = tl.zeros([tile, dims], tl.int32)
    for start in range(0, tokens, columns):
        column = start + tl.arange(0, columns)
        t = scores(query, k, column, tokens, width, head, dim, by, places, dims)
        p = f.probability(tl.maximum(largest[:, None] - t, 0), exp2)
        p = tl.where((column < tokens)[None, :], p, 0)
        total += tl.sum(p, 1)
        from_v = column.to(tl.int64)[:, None] * width + head * dim + d[None, :]
        values = tl.load(v + from_v, mask=(column < tokens)[:, None] & (d < dim)[None, :], other=0)
        acc = tl.dot(p.to(tl.int8), values, acc, out_dtype=tl.int32)
    r, e = f.reciprocal(total.to(tl.int64), recip)
    z = f.sat16(f.shift_round(acc.to(tl.int64) * r[:, None], (22 + e)[:, None]))
    result = f.sat8(f.rescale(z, nought + multiplier, nought + shift))
    tl.store(y + at, result.to(tl.int8), mask=live)
