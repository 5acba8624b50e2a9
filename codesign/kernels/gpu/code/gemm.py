# SPDX-License-Identifier: Apache-2.0
"""Products of int8 rows with packed weights: dense, and over experts whose pairs of token and expert are sorted.

Weights lie in cells (docs/edge.md, section 1), in up to three levels, and are unpacked in registers to the int8 that
they stand for; a padded input is multiplied by 0, a padded output is not stored. Sums are int32: K <= 8192.
"""

import triton
import triton.language as tl

from codesign.kernels.gpu.code import integers as f

INT8 = tl.constexpr(0)
"""What becomes of a sum: rescaled to int8,"""
INT16 = tl.constexpr(1)
"""to int16,"""
GELU = tl.constexpr(2)
"""to int16 and through GELU to int8,"""
ADD = tl.constexpr(3)
"""to int16 and added to the int16 of `extra` at its place,"""
GATED = tl.constexpr(4)
"""to int16 and times the pair's gate, an int32 of `extra`, to int16."""


@triton.jit
def digits(cells, panel, panels, group, groups, wanted, bits: tl.constexpr, outs: tl.constexpr, ins: tl.constexpr):
    """One level's digits uint8 [outs, ins] of the panels and groups of inputs; 0 outside, and where not wanted."""
    size: tl.constexpr = 8 * bits
    fields: tl.constexpr = 8 // bits
    byte = tl.arange(0, size)
    at = (panel[:, None, None] * groups + group[None, :, None]) * size + byte[None, None, :]
    live = ((panel < panels)[:, None, None] & (group < groups)[None, :, None]) & wanted
    packed = tl.load(cells + at, mask=live, other=0)
    shift = (tl.arange(0, fields) * bits).to(tl.uint8)
    found = (packed[:, :, None, :] >> shift[None, None, :, None]) & ((1 << bits) - 1)
    found = tl.permute(tl.reshape(found, (outs // 16, ins // 4, 16, 4)), (0, 2, 1, 3))
    return tl.reshape(found, (outs, ins))


@triton.jit
def rows_of(x, row, live, k, inputs):
    """A tile of x int8 [rows, inputs], 0 outside."""
    return tl.load(x + row[:, None] * inputs + k[None, :], mask=live[:, None] & (k < inputs)[None, :], other=0)


@triton.jit
def level_sums(
    x, row, live, arena, places, levels, inputs, panel, panels, groups, offset: tl.constexpr,
    bits0: tl.constexpr, bits1: tl.constexpr, bits2: tl.constexpr, pos0: tl.constexpr, pos1: tl.constexpr,
    tile: tl.constexpr, outs: tl.constexpr, ins: tl.constexpr,
):  # fmt: skip
    """Sums int32 [tile, outs] with the first `levels` levels; `bits` 0: there is no such level. The last is at 0."""
    half = tl.where(levels == 1, (1 << pos0) >> 1, tl.where(levels == 2, (1 << pos1) >> 1, 0))
    plus = ((half - offset) & 255).to(tl.uint8)
    first = arena + tl.load(places)
    if bits1 > 0:
        second = arena + tl.load(places + 1)
    if bits2 > 0:
        third = arena + tl.load(places + 2)
    acc = tl.zeros([tile, outs], tl.int32)
    for start in range(0, groups, ins // 4):
        group = start + tl.arange(0, ins // 4)
        k = start * 4 + tl.arange(0, ins)
        code = digits(first, panel, panels, group, groups, levels > 0, bits0, outs, ins) << pos0
        if bits1 > 0:
            code |= digits(second, panel, panels, group, groups, levels > 1, bits1, outs, ins) << pos1
        if bits2 > 0:
            code |= digits(third, panel, panels, group, groups, levels > 2, bits2, outs, ins)
        weight = (code + plus).to(tl.int8, bitcast=True)
        acc = tl.dot(rows_of(x, row, live, k, inputs), tl.trans(weight), acc, out_dtype=tl.int32)
    return acc


@triton.jit
def residual_sums(
    x, row, live, arena, places, levels, inputs, panel, panels, groups, n, bits1: tl.constexpr, bits2: tl.constexpr,
    tile: tl.constexpr, outs: tl.constexpr,
):  # fmt: skip
    """Sums int64 [tile, outs] of the residual format with the base and `levels` - 1 planes (docs/edge.md, section 4).

    Multipliers int16 lie behind the cells of each level, Z int32 behind those of the base, both [input groups, rows].
    """
    each: tl.constexpr = 128  # inputs that share multipliers
    acc = tl.zeros([tile, outs], tl.int64)
    stride = panels * 16
    here = n < stride
    first = arena + tl.load(places)
    scale0 = (first + panels * groups * 16).to(tl.pointer_type(tl.int16))
    zeros = (first + panels * groups * 16 + stride * tl.cdiv(inputs, each) * 2).to(tl.pointer_type(tl.int32))
    if bits1 > 0:
        second = arena + tl.load(places + 1)
        scale1 = (second + panels * groups * 8).to(tl.pointer_type(tl.int16))
    if bits2 > 0:
        third = arena + tl.load(places + 2)
        scale2 = (third + panels * groups * 8).to(tl.pointer_type(tl.int16))
    for part in range(0, tl.cdiv(inputs, each)):
        group = part * (each // 4) + tl.arange(0, each // 4)
        xs = rows_of(x, row, live, part * each + tl.arange(0, each), inputs)
        total = tl.sum(xs.to(tl.int32), 1).to(tl.int64)[:, None]
        base = digits(first, panel, panels, group, groups, levels > 0, 2, outs, each).to(tl.int8, bitcast=True)
        found = tl.dot(xs, tl.trans(base), out_dtype=tl.int32).to(tl.int64)
        acc += found * tl.load(scale0 + part * stride + n, mask=here, other=0).to(tl.int64)[None, :]
        acc -= total * tl.load(zeros + part * stride + n, mask=here, other=0).to(tl.int64)[None, :]
        if bits1 > 0:
            plane = digits(second, panel, panels, group, groups, levels > 1, 1, outs, each).to(tl.int8, bitcast=True)
            found = 2 * tl.dot(xs, tl.trans(plane), out_dtype=tl.int32).to(tl.int64) - total
            by = tl.load(scale1 + part * stride + n, mask=here & (levels > 1), other=0)
            acc += found * by.to(tl.int64)[None, :]
        if bits2 > 0:
            plane = digits(third, panel, panels, group, groups, levels > 2, 1, outs, each).to(tl.int8, bitcast=True)
            found = 2 * tl.dot(xs, tl.trans(plane), out_dtype=tl.int32).to(tl.int64) - total
            by = tl.load(scale2 + part * stride + n, mask=here & (levels > 2), other=0)
            acc += found * by.to(tl.int64)[None, :]
    return acc


@triton.jit
def put(y, at, live, value, n, pair, extra, table, multiplier, shift, width, finish: tl.constexpr):
    """Store the rescaled sums int64 [tile, outs] of a tile in the way that `finish` says."""
    if finish == INT8:
        tl.store(y + at, f.sat8(value).to(tl.int8), mask=live)
    else:
        o = f.sat16(value)
        if finish == INT16:
            tl.store(y + at, o.to(tl.int16), mask=live)
        elif finish == GELU:
            by = tl.full([1, 1], 0, tl.int64)
            g = f.rescale(f.less_delta(o, table, 12), by + multiplier, by + shift)
            tl.store(y + at, f.sat8(g).to(tl.int8), mask=live)
        elif finish == ADD:
            more = tl.load(extra + at, mask=live, other=0).to(tl.int32)
            tl.store(y + at, f.sat16(o + more).to(tl.int16), mask=live)
        else:
            gate = tl.load(extra + pair).to(tl.int64)[:, None]
            part = f.sat16((o.to(tl.int64) * gate + (1 << 14)) >> 15)
            tl.store(y + at, part.to(tl.int16), mask=live)


@triton.jit(do_not_specialize=["rows", "multiplier", "shift"])
def product(
    x, tokens, arena, places, blocks, bias, multipliers, shifts, extra, table, y,
    rows, inputs, outputs, multiplier, shift,
    grouped: tl.constexpr, gather: tl.constexpr, residual: tl.constexpr, finish: tl.constexpr, offset: tl.constexpr,
    bits0: tl.constexpr, bits1: tl.constexpr, bits2: tl.constexpr, pos0: tl.constexpr, pos1: tl.constexpr,
    tile: tl.constexpr, outs: tl.constexpr, ins: tl.constexpr,
):  # fmt: skip
    """A tile of y [rows or pairs, outputs].

    Not `grouped`: rows of x times the weight at places int64 [levels]. `grouped`: block b of blocks int32 [?, 4] (place
    row, first pair, pairs, rescaling row with the number of levels above bit 24); places int64 [experts, levels]; pair
    p multiplies x[tokens[p]] (`gather`) or x[p]. bias, multipliers, shifts int32 [rescaling rows, outputs].
    """
    width: tl.constexpr = 1 + (bits1 > 0) + (bits2 > 0)
    lane = tl.arange(0, tile)
    levels = tl.program_id(0) * 0 + width
    scaling = 0
    if grouped:
        entry = blocks + tl.program_id(0) * 4
        places += tl.load(entry) * width
        pair = tl.load(entry + 1) + lane
        live = lane < tl.load(entry + 2)
        packed = tl.load(entry + 3)
        scaling, levels = packed & 0xFFFFFF, packed >> 24
        if tl.load(entry + 2) == 0:
            return
    else:
        pair = tl.program_id(0) * tile + lane
        live = pair < rows
    pair = tl.where(live, pair, 0).to(tl.int64)
    row = tl.load(tokens + pair).to(tl.int64) if gather else pair
    n = tl.program_id(1) * outs + tl.arange(0, outs)
    panel = tl.program_id(1) * (outs // 16) + tl.arange(0, outs // 16)
    panels, groups = tl.cdiv(outputs, 16), tl.cdiv(inputs, 64) * 16
    if residual:
        acc = residual_sums(
            x, row, live, arena, places, levels, inputs, panel, panels, groups, n, bits1, bits2, tile, outs
        )
    else:
        acc = level_sums(
            x, row, live, arena, places, levels, inputs, panel, panels, groups, offset,
            bits0, bits1, bits2, pos0, pos1, tile, outs, ins,
        ).to(tl.int64)  # fmt: skip
    here, at = n < outputs, scaling * outputs + n
    acc += tl.load(bias + at, mask=here, other=0).to(tl.int64)[None, :]
    by = tl.load(multipliers + at, mask=here, other=0)[None, :]
    value = f.rescale(acc, by, tl.load(shifts + at, mask=here, other=1)[None, :])
    put(
        y, pair[:, None] * outputs + n[None, :], live[:, None] & here[None, :], value, n, pair, extra, table,
        multiplier, shift, outputs, finish,
    )  # fmt: skip
