# SPDX-License-Identifier: Apache-2.0
"""Pairs of token and expert: sorted by expert with the tiles that each expert gets, and added up for each token."""

import triton
import triton.language as tl

from codesign.kernels.gpu.code import integers as f


@triton.jit(do_not_specialize=["rows"])
def group(
    gates, scaling, blocks, tokens, pair_gates, slots, rows, experts, most, rows_a_block: tl.constexpr,
    tile: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """Program e sorts expert e's pairs, of gates int32 [rows, experts], behind those of the experts before it.

    blocks int32 [?, 4], zeros before: expert, first pair, pairs (at most `rows_a_block`), its entry of scaling int32
    [experts]. tokens, pair_gates int32 [pairs]. slots int32 [rows, most], -1 before: each token's pairs in the order
    of experts.
    """
    mine = tl.program_id(0)
    e = tl.arange(0, columns)
    counts = tl.zeros([columns], tl.int32)
    for start in range(0, rows, tile):
        counts += tl.sum(_used(gates, start, rows, experts, tile, columns), 0)
    before = e < mine
    first = tl.sum(tl.where(before, counts, 0), 0)
    count = tl.sum(tl.where(e == mine, counts, 0), 0)
    tiles = (counts + (rows_a_block - 1)) // rows_a_block
    block = tl.sum(tl.where(before, tiles, 0), 0)
    for done in range(0, count, rows_a_block):
        entry = blocks + (block + done // rows_a_block) * 4
        tl.store(entry, mine)
        tl.store(entry + 1, first + done)
        tl.store(entry + 2, tl.minimum(count - done, rows_a_block))
        tl.store(entry + 3, tl.load(scaling + mine))
    for start in range(0, rows, tile):
        used = _used(gates, start, rows, experts, tile, columns)
        t = start + tl.arange(0, tile)
        own = tl.sum(tl.where((e == mine)[None, :], used, 0), 1)
        pair = first + tl.cumsum(own, 0) - own
        gate = tl.load(gates + t * experts + mine, mask=own > 0, other=0)
        tl.store(tokens + pair, t, mask=own > 0)
        tl.store(pair_gates + pair, gate, mask=own > 0)
        tl.store(slots + t * most + tl.sum(tl.where(before[None, :], used, 0), 1), pair, mask=own > 0)
        first += tl.sum(own, 0)


@triton.jit
def _used(gates, start, rows, experts, tile: tl.constexpr, columns: tl.constexpr):
    """1 where a gate is not 0, int32 [tile, columns]."""
    t = start + tl.arange(0, tile)
    e = tl.arange(0, columns)
    live = (t < rows)[:, None] & (e < experts)[None, :]
    return (tl.load(gates + t[:, None] * experts + e[None, :], mask=live, other=0) > 0).to(tl.int32)


@triton.jit(do_not_specialize=["rows"])
def combine(residual, parts, slots, y, rows, width, most, tile: tl.constexpr, columns: tl.constexpr):
    """y int16 [rows, width]: residual plus the parts int16 [pairs, width] in the order of the slots, saturated each."""
    t = tl.program_id(0) * tile + tl.arange(0, tile)
    d = tl.program_id(1) * columns + tl.arange(0, columns)
    live = (t < rows)[:, None] & (d < width)[None, :]
    at = t.to(tl.int64)[:, None] * width + d[None, :]
    total = tl.load(residual + at, mask=live, other=0).to(tl.int32)
    for slot in range(most):
        pair = tl.load(slots + t * most + slot, mask=t < rows, other=-1).to(tl.int64)
        part = tl.load(parts + pair[:, None] * width + d[None, :], mask=live & (pair >= 0)[:, None], other=0)
        total = f.sat16(total + part.to(tl.int32))
    tl.store(y + at, total.to(tl.int16), mask=live)
