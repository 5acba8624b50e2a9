# SPDX-License-Identifier: Apache-2.0
"""What the machine refuses as an illegal instruction: the rules that both machines implement, one by one.

They keep a damaged Program from reading or writing outside the on-chip memories, from leaving blocks of its stream to
the instruction after it, from loops and waits that never end, and from results that depend on the engine or on time.
`violation` reads only the instruction and the machine's size, `misplaced` also what stands before the instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from codesign.schedule.design import MachineSize
from codesign.schedule.isa import (
    MAX_WIDTHS,
    PLANES,
    SHIFT_BITS,
    WIDTH_BITS,
    Instruction,
    Opcode,
    Post,
    Space,
    Unit,
    WeightFormat,
    Width,
)

Verdicts = Iterator[tuple[bool, str]]
"""(holds, what must hold), in the order the rules are checked."""


@dataclass(frozen=True)
class Before:
    """What the rules know of the instructions before one. An `end` is how many are complete when that one is; 0: none.

    `rows` and `experts` are those of the last ROUTE: the queues are its.
    """

    count: int = 0
    first_store_end: int = 0
    route_end: int = 0
    rows: int = 0
    experts: int = 0

    def then(self, i: Instruction) -> Before:
        """What the instruction after `i` has before it."""
        end = self.count + 1
        if i.opcode is Opcode.ROUTE:
            return replace(self, count=end, route_end=end, rows=i.rows, experts=i.num_experts)
        if i.opcode is Opcode.STORE:
            return replace(self, count=end, first_store_end=self.first_store_end or end)
        return replace(self, count=end)


def violation(i: Instruction, size: MachineSize) -> str | None:
    """The first rule that the instruction breaks, None when it is legal; its codes are (`Instruction.decode`)."""
    return next((text for holds, text in RULES[i.opcode](i, size) if not holds), None)


def misplaced(i: Instruction, before: Before) -> str | None:
    """The first rule that a legal instruction breaks by standing where it does, None when it may."""
    return next((text for holds, text in _place(i, before) if not holds), None)


def first_violation(program: Iterable[Instruction], size: MachineSize) -> tuple[int, str] | None:
    """Index and broken rule of the instruction at which a run would stop, None when the Program is legal."""
    before = Before()
    for i in program:
        found = violation(i, size) or misplaced(i, before)
        if found is not None:
            return before.count, found
        before = before.then(i)
    return None


def _place(i: Instruction, before: Before) -> Verdicts:
    yield i.fence <= before.count, "fence at most its own index"
    if i.opcode is Opcode.LOAD and i.space is Space.OUTPUT:
        yield 0 < before.first_store_end <= i.fence, "a STORE within its fence"
    if i.opcode is Opcode.EXPERTS:
        yield before.route_end > 0, "a ROUTE before it"
        yield before.route_end <= i.fence, "the ROUTE within its fence"
        yield i.rows == before.rows, "rows of the ROUTE"
        yield i.num_experts == before.experts, "num_experts of the ROUTE"


def _act(base: int, stride: int, rows: int, width: int, size: MachineSize) -> bool:
    """Rows of `width` words, and the spare word after them, lie in ACT. Also for one row a stride is counted."""
    return width <= stride and base + rows * stride < size.act_words


def _res(base: int, stride: int, rows: int, width: int, size: MachineSize) -> bool:
    return width <= stride and base + rows * stride <= size.res_words


def _rows(i: Instruction, size: MachineSize) -> Verdicts:
    yield 1 <= i.rows <= size.max_rows, "rows in 1..max_rows"


def _stream(i: Instruction) -> Verdicts:
    yield i.space is Space.MEMORY, "space MEMORY"


def _shift(shift: int) -> bool:
    return 1 <= shift < 1 << SHIFT_BITS


def _words(lanes_tiles: int, size: MachineSize) -> int:
    """ACT words of `lanes_tiles` tiles of `pe` lanes."""
    return -(-lanes_tiles * size.pe // size.simd)


def _dense_source(i: Instruction, size: MachineSize) -> Verdicts:
    yield from _stream(i)
    yield i.k_words >= 1 and i.n_tiles >= 1, "k_words and n_tiles at least 1"
    yield _act(i.src_base, i.src_stride, i.rows, i.k_words, size), "x inside ACT"
    yield i.blocks == size.dense_blocks(i.n_tiles, i.k_words, PLANES[i.weight_format]), "blocks of the dense stream"


def _load(i: Instruction, size: MachineSize) -> Verdicts:
    act = i.unit is Unit.ACT
    yield i.unit is not Unit.QUEUE, "unit ACT or RES"
    yield i.words >= 1, "words at least 1"
    yield i.dst_base + i.words <= (size.act_words if act else size.res_words), "words inside the memory"
    per_block = size.block_act_words if act else size.block_res_words
    yield (i.blocks - 1) * per_block < i.words <= i.blocks * per_block, "blocks of the words"


def _store(i: Instruction, size: MachineSize) -> Verdicts:
    yield i.space is Space.OUTPUT, "space OUTPUT"
    yield i.words >= 1, "words at least 1"
    queue = size.max_experts * (size.max_rows + 1)
    depth = {Unit.ACT: size.act_words, Unit.RES: size.res_words, Unit.QUEUE: -(-queue // 4) * 4}[i.unit]
    yield i.src_base + i.words <= depth, "words inside the memory"
    yield i.unit is not Unit.QUEUE or i.words % 4 == 0, "queue entries in fours"


def _linear(i: Instruction, size: MachineSize) -> Verdicts:
    yield from _rows(i, size)
    yield from _dense_source(i, size)
    yield i.post is not Post.GELU or _shift(i.shift), "shift of GELU in 1..63"
    if i.post in (Post.INT8, Post.GELU):
        yield _act(i.dst_base, i.dst_stride, i.rows, _words(i.n_tiles, size), size), "result inside ACT"
    else:
        yield _res(i.dst_base, i.dst_stride, i.rows, i.n_tiles, size), "result inside RES"


def _attention(i: Instruction, size: MachineSize) -> Verdicts:
    yield from _rows(i, size)
    yield 1 <= i.keys <= size.key_words * size.simd, "keys in 1..key_words * simd"
    yield i.num_heads >= 1 and i.dim >= 1, "num_heads and dim at least 1"
    yield _shift(i.shift) and _shift(i.shift2), "shift and shift2 in 1..63"
    columns = -(-i.num_heads * i.dim // size.simd)
    yield _act(i.src_base, i.src_stride, i.rows, columns, size), "q inside ACT"
    yield _act(i.aux_base, i.src_stride, i.keys, columns, size), "k inside ACT"
    yield _act(i.aux2_base, i.src_stride, i.keys, columns, size), "v inside ACT"
    yield _act(i.dst_base, i.dst_stride, i.rows, columns, size), "result inside ACT"


def _norm(i: Instruction, size: MachineSize) -> Verdicts:
    yield from _rows(i, size)
    yield from _stream(i)
    yield i.n_tiles >= 1 and 1 <= i.dim <= i.n_tiles * size.pe <= size.norm_dim_max, "dim in its tiles"
    yield _res(i.src_base, i.src_stride, i.rows, i.n_tiles, size), "x inside RES"
    yield _act(i.dst_base, i.dst_stride, i.rows, _words(i.n_tiles, size), size), "result inside ACT"
    yield i.blocks == i.n_tiles * size.record_blocks, "blocks of the records"
    yield _shift(i.shift), "shift in 1..63"


def _route(i: Instruction, size: MachineSize) -> Verdicts:
    yield from _rows(i, size)
    yield i.n_tiles == 1, "one n tile"
    yield from _dense_source(i, size)
    yield 1 <= i.num_experts <= size.max_experts, "num_experts in 1..max_experts"
    yield 1 <= i.top_k <= i.num_experts, "top_k in 1..num_experts"


def _experts(i: Instruction, size: MachineSize) -> Verdicts:
    yield from _rows(i, size)
    yield from _stream(i)
    yield _shift(i.shift), "shift in 1..63"
    yield 1 <= i.num_experts <= size.max_experts, "num_experts in 1..max_experts"
    yield i.ahead <= i.num_experts, "ahead at most num_experts"
    yield i.k_words >= 1 and i.n_tiles >= 1 and i.k_words2 >= 1 and i.n_tiles2 >= 1, "k_words and n_tiles at least 1"
    planes = PLANES[i.weight_format]
    blocks = size.dense_blocks(i.n_tiles, i.k_words, planes) + size.dense_blocks(i.n_tiles2, i.k_words2, planes)
    yield i.blocks == blocks, "blocks of one expert"
    codes = [(i.widths >> (WIDTH_BITS * e)) & 3 for e in range(MAX_WIDTHS)]
    yield all(code in tuple(Width) for code in codes), "known widths"
    yield i.widths == 0 or i.weight_format is WeightFormat.INT8, "slices of INT8 only"
    yield _act(i.src_base, i.src_stride, i.rows, i.k_words, size), "x inside ACT"
    hidden = max(i.k_words2, _words(i.n_tiles, size))
    yield _act(i.aux_base, i.aux_stride, i.rows, hidden, size), "hidden rows inside ACT"
    yield _res(i.dst_base, i.dst_stride, i.rows, i.n_tiles2, size), "result inside RES"


RULES: Mapping[Opcode, Callable[[Instruction, MachineSize], Verdicts]] = MappingProxyType(
    {
        Opcode.LOAD: _load,
        Opcode.STORE: _store,
        Opcode.LINEAR: _linear,
        Opcode.ATTENTION: _attention,
        Opcode.NORM: _norm,
        Opcode.ROUTE: _route,
        Opcode.EXPERTS: _experts,
    }
)
