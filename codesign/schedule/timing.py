# SPDX-License-Identifier: Apache-2.0
"""Clock cycles of a Program without simulating the machine: passes, tiles and blocks instead of cycles.

The model follows docs/machine.md at the grain of a weight tile: blocks arrive from DRAM at its sustained rate, into a
FIFO of limited depth, in Program order; a tile's planes load while the tile before computes; the array issues one slot
a cycle, rows wait for the rows they read; NORM and ROUTE run beside the array. Latencies are those of the RTL's
pipelines, `Latencies`. The only input beside Program and machine is how many tokens each expert gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import numpy.typing as npt

from codesign.schedule.design import MachineSize
from codesign.schedule.isa import PLANES, SLICE_BITS, Instruction, Opcode, Post, Unit, Width
from codesign.schedule.stream import ceil_div

Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Latencies:
    """Pipeline lengths of the RTL, in cycles: counted in its sources, or read off its simulation where units meet."""

    start: int = 7
    """To the request of the Program's first line, and from its last line to the first dispatch."""
    fetch: int = 20
    """From the first dispatch to the request of its data: the check of an instruction."""
    dispatch: int = 2
    """From a completion to the start of the instruction that waited for it."""
    passes: int = 3
    """From there to its first pass,"""
    experts: int = 5
    """and if the queues are looked at first."""
    dense: int = 40
    """From a slot to its result being readable, beside the adder tree's levels."""
    first_slot: int = 6
    """From a tile's last plane to its first slot."""
    kv_load: int = 8
    """To the first key of an ATTENTION."""
    min_slots: int = 8
    """Slots of a tile of few rows; with its records' blocks, from the tile before to one that brings records."""
    ahead: int = 5
    """By how much a tile's load begins before the first slot of the tile before: its data are under way meanwhile."""
    norm: int = 38
    """From reading a row to its result being readable, beside its words and the adder tree's levels,"""
    norm_records: int = 21
    """and from its last parameter record."""
    store: int = 28
    """Of a STORE beside its beats and the memory's own latency."""

    def result(self, size: MachineSize) -> int:
        """From a slot to its result being readable."""
        return self.dense + (size.simd // 8 - 1).bit_length()

    def normed(self, size: MachineSize, n_tiles: int) -> int:
        """From reading the first word of a row to its result being readable, beside `n_tiles` cycles."""
        return self.norm + (size.pe - 1).bit_length() + n_tiles

    def routed(self, size: MachineSize, rows: int, top_k: int) -> int:
        """From the last row of logits to the final queues (rtl/router.sv: a ring of picks, then the counts)."""
        levels = (size.max_experts - 1).bit_length()
        ring = 1 + max(2, ceil_div(levels, 2))
        pick = max(10 + max(1, levels), (top_k - 1) * ring + 4)
        return (rows - 1) * (top_k - 1) + 3 + ring + pick + top_k + size.max_experts + 5


@dataclass(frozen=True)
class Supply:
    """The external memory: sustained bytes a cycle over all ports, and cycles from request to data."""

    bytes_per_cycle: float
    latency: float


@dataclass(frozen=True)
class Shares:
    """Shares of the multipliers that separate units have, each for its own work; one unit does all with all of them."""

    dense: float = 1.0
    experts: float = 1.0
    attention: float = 1.0


@dataclass(frozen=True)
class Lacking:
    """What a machine without some of this one's ideas would do (`codesign.schedule.switches`); by default, nothing."""

    softmax_passes: int = 0
    """Passes over a head's scores, `simd` lanes a cycle, that the array waits for before the weighted sum."""
    gelu_pass: bool = False
    """GELU is a pass over the hidden activations, `pe` lanes a cycle, that the array waits for."""
    row_loads: bool = False
    """A weight tile loads one row a cycle instead of one bit plane."""
    shares: Shares = Shares()


@dataclass(frozen=True)
class InstructionTime:
    """Cycles that an instruction adds to the run, split by what the array did meanwhile; they add up.

    A NORM that runs beside the array adds none itself; the array's wait for its rows is `fill` of the next instruction.
    """

    cycles: int
    compute: int
    """Slots that computed."""
    memory: int
    """Waiting for blocks of the stream, or for a LOAD or STORE."""
    fill: int
    """Waiting for rows, queues, or a pipeline to fill or drain."""
    stall: int
    """Slots that tiles of few rows leave empty, and waiting for tiles that load longer than the one before computes."""


@dataclass(frozen=True)
class ProgramTime:
    """A whole Program's cycles."""

    cycles: int
    instructions: tuple[InstructionTime, ...]


@dataclass
class _Stream:
    """Arrival of the stream's blocks in the FIFO."""

    size: MachineSize
    supply: Supply
    free_at: float
    """When the memory can deliver the next block."""
    pops: list[int] = field(default_factory=list)

    def pop(self, count: int, earliest: int, not_before: float = 0.0) -> int:
        """Pops `count` blocks one a cycle, the first at `earliest` or later; the cycle after the last.

        `not_before`: when the first of them may be requested.
        """
        cycles = self.size.block_bytes / self.supply.bytes_per_cycle
        time = earliest
        for _ in range(count):
            requested = max(self.free_at - self.supply.latency, not_before)
            if len(self.pops) >= self.size.fifo_blocks:  # a block is requested when there is room for it
                requested = max(requested, self.pops[-self.size.fifo_blocks])
            self.free_at = max(self.free_at, requested + self.supply.latency) + cycles
            time = max(time, int(self.free_at) + 1)
            self.pops.append(time)
            time += 1
        return time


@dataclass(frozen=True)
class _Pass:
    """One pass of the array."""

    rows: int
    n_tiles: int
    k_words: int
    blocks: int
    """Blocks of a weight tile; 0: it comes from ACT."""
    load: int
    """Cycles that loading a tile takes at least."""
    not_before: float = 0.0
    """When its blocks may be requested."""
    share: float = 1.0
    """Of the multipliers."""
    ones: int = 0
    """Planes that the machine appends to a tile's blocks: they take a cycle to load, but do not come from memory."""


@dataclass
class _Machine:
    size: MachineSize
    stream: _Stream
    lat: Latencies
    lacking: Lacking
    slot: int = 0
    """First cycle in which the array can issue."""
    shadow: int = 0
    """First cycle in which the next tile may load."""
    complete: int = 0
    """When every instruction so far is complete."""
    norm_free: int = 0
    rows: Times = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """When each row of the latest instruction's result is readable."""
    begun: int = 0
    """First slot of the latest tile."""
    front: int = 0
    """The cycle up to which time is accounted for."""
    compute: int = 0
    memory: int = 0
    stall: int = 0


def estimate(
    program: Sequence[Instruction],
    size: MachineSize,
    supply: Supply,
    tokens: Sequence[Sequence[int]],
    latencies: Latencies = Latencies(),
    lacking: Lacking = Lacking(),
) -> ProgramTime:
    """Cycles of a Program. `tokens[i]`: tokens of each expert in the i-th EXPERTS instruction."""
    lines = len(program) * 64 / size.line_bytes
    begin = int(latencies.start + supply.latency + lines * size.line_bytes / supply.bytes_per_cycle)
    data = begin + latencies.fetch + 2 * supply.latency  # the memory's pipeline is empty, its rows are closed
    machine = _Machine(size, _Stream(size, supply, data), latencies, lacking, begin, begin, begin)
    queues = iter(tokens)
    times = []
    for instruction in program:
        counted = machine.front, machine.compute, machine.memory, machine.stall
        machine.complete = max(machine.complete, _run(machine, instruction, queues))
        alone = instruction.opcode in (Opcode.LOAD, Opcode.STORE) or instruction is program[-1]
        machine.front = max(machine.front, machine.slot, machine.complete if alone else 0)
        now = machine.front, machine.compute, machine.memory, machine.stall
        cycles, compute, memory, stall = (n - c for n, c in zip(now, counted, strict=True))
        if alone and not compute:
            memory = cycles
        times.append(InstructionTime(cycles, compute, memory, cycles - compute - memory - stall, stall))
    return ProgramTime(machine.complete, tuple(times))


def _run(m: _Machine, i: Instruction, queues: Iterator[Sequence[int]]) -> int:
    """Runs one instruction; the cycle in which it is complete."""
    if not i.chain:
        m.rows = np.zeros(0, dtype=np.int64)
    start = m.complete + m.lat.dispatch if not i.chain else 0
    if i.opcode is Opcode.LOAD:
        return _load(m, i, start)
    if i.opcode is Opcode.STORE:
        return _store(m, i, start)
    if i.opcode is Opcode.NORM:
        return _norm(m, i, start)
    if not i.chain:
        start += m.lat.experts if i.opcode is Opcode.EXPERTS else m.lat.passes
        m.slot, m.shadow = max(m.slot, start), max(m.shadow, start)
    if i.opcode is Opcode.ATTENTION:
        return _attention(m, i)
    if i.opcode is Opcode.EXPERTS:
        return _experts(m, i, next(queues))
    share = m.lacking.shares.dense
    dense = _Pass(i.rows, i.n_tiles, i.k_words, PLANES[i.weight_format], _row_load(m), share=share)
    end = _pass(m, dense, first_waits=bool(i.chain))
    if i.opcode is Opcode.LINEAR and i.post is Post.GELU:
        end = _gelu(m, i.rows, i.n_tiles)
    if i.opcode is Opcode.ROUTE:
        m.rows = np.zeros(0, dtype=np.int64)
        return end + m.lat.routed(m.size, i.rows, i.top_k)
    return end


def _row_load(m: _Machine) -> int:
    """Cycles that a weight tile takes to load where it is not loaded by planes."""
    return m.size.pe if m.lacking.row_loads else 0


def _gelu(m: _Machine, rows: int, n_tiles: int) -> int:
    """The end of a pass of its own, if GELU is one."""
    if m.lacking.gelu_pass:
        m.slot = max(m.slot, int(m.rows[-1])) + rows * n_tiles
        m.rows = np.full(rows, m.slot, dtype=np.int64)
    return int(m.rows[-1])


def _load(m: _Machine, i: Instruction, start: int) -> int:
    """One memory word a cycle, as its blocks arrive."""
    per_block = m.size.block_act_words if i.unit is Unit.ACT else m.size.block_res_words
    time = start
    for _ in range(i.blocks):
        time = m.stream.pop(1, time, start if i.fence else 0.0) - 1 + per_block
    m.slot = m.shadow = max(m.slot, time)
    return time + m.lat.first_slot


def _store(m: _Machine, i: Instruction, start: int) -> int:
    """One beat a cycle, then the write responses."""
    beats = {Unit.ACT: m.size.act_beats * i.words, Unit.RES: m.size.res_beats * i.words, Unit.QUEUE: i.words // 4}
    return start + beats[i.unit] + m.lat.store + int(m.stream.supply.latency)


def _norm(m: _Machine, i: Instruction, start: int) -> int:
    """A RES word a cycle; rows wait for the instruction before when chained."""
    records = m.stream.pop(i.n_tiles * m.size.record_blocks, max(start, m.norm_free))
    ready = m.rows if i.chain and len(m.rows) == i.rows else np.full(i.rows, start, dtype=np.int64)
    first = max(start, m.norm_free)
    steps = np.arange(i.rows, dtype=np.int64) * i.n_tiles
    read = np.maximum.accumulate(np.maximum(ready, first) - steps) + steps
    m.norm_free = int(read[-1]) + i.n_tiles
    m.rows = np.maximum(read + i.n_tiles + m.lat.normed(m.size, i.n_tiles), records + steps + m.lat.norm_records)
    return int(m.rows[-1])


def _attention(m: _Machine, i: Instruction) -> int:
    end = 0
    m.shadow += m.lat.kv_load + ceil_div(i.keys, m.size.pe)  # the issuer counts the tiles of keys
    for head in range(i.num_heads):
        first, last = head * i.dim, (head + 1) * i.dim
        columns = last - first // 16 * 16
        windows, groups = ceil_div(columns, m.size.simd), ceil_div(columns, m.size.pe)
        share, key_words = m.lacking.shares.attention, ceil_div(i.keys, m.size.simd)
        _pass(m, _Pass(i.rows, ceil_div(i.keys, m.size.pe), windows, 0, m.size.pe, share=share), first_waits=False)
        if m.lacking.softmax_passes:
            m.slot = max(m.slot, int(m.rows[-1])) + m.lacking.softmax_passes * i.rows * key_words
            m.rows = np.full(i.rows, m.slot, dtype=np.int64)
        mix = _Pass(i.rows, groups, key_words, 0, m.size.simd, share=share)
        end = _pass(m, mix, first_waits=True)
    return end


def _experts(m: _Machine, i: Instruction, tokens: Sequence[int]) -> int:
    """Two passes an expert with tokens; the first `ahead` are on chip early, whether or not they have any."""
    end = dispatched = m.slot
    for e, count in enumerate(tokens):
        code = i.width_of(e)
        planes, ones = (PLANES[i.weight_format], 0) if code is Width.STORED else (SLICE_BITS[code], 1)
        late = float(dispatched) if e >= i.ahead else 0.0
        if count == 0:
            if e < i.ahead:
                blocks = m.size.dense_blocks(i.n_tiles, i.k_words, planes)
                blocks += m.size.dense_blocks(i.n_tiles2, i.k_words2, planes)
                m.shadow = m.stream.pop(blocks, m.shadow)
            continue
        share, load = m.lacking.shares.experts, _row_load(m)
        first = _Pass(count, i.n_tiles, i.k_words, planes, load, not_before=late, share=share, ones=ones)
        _pass(m, first, first_waits=False)
        _gelu(m, count, i.n_tiles)
        second = _Pass(count, i.n_tiles2, i.k_words2, planes, load, not_before=late, share=share, ones=ones)
        end = _pass(m, second, first_waits=True)
    return end


def _pass(m: _Machine, p: _Pass, first_waits: bool) -> int:
    """Issues one pass; the cycle in which its last row is readable."""
    ready = m.rows if first_waits and len(m.rows) == p.rows else None
    slots = np.zeros(0, dtype=np.int64)
    steps = (np.arange(p.rows) / p.share).astype(np.int64)
    work = ceil(p.rows / p.share)
    length = max(work, m.lat.min_slots)
    for tile in range(p.n_tiles * p.k_words):
        blocks = p.blocks + (m.size.record_blocks if p.blocks and tile % p.k_words == 0 else 0)
        load = max(p.load, blocks + p.ones)
        unhindered = m.shadow + load
        loaded = max(m.stream.pop(blocks, m.shadow, p.not_before) + p.ones, unhindered) if blocks else unhindered
        begin = max(m.slot, loaded + m.lat.first_slot)
        if blocks > p.blocks:
            begin = max(begin, m.begun + m.lat.min_slots + m.size.record_blocks)
        m.begun = begin
        m.memory += min(begin - m.slot, loaded - unhindered)
        m.stall += max(0, min(begin - m.slot - (loaded - unhindered), load)) if tile else 0
        slots = begin + steps
        if tile == 0 and ready is not None:
            slots = np.maximum.accumulate(np.maximum(ready, begin) - steps) + steps
        m.compute += work
        m.stall += length - work
        m.slot = max(int(slots[-1]) + 1, int(slots[0]) + length)
        m.shadow = int(slots[0]) - m.lat.ahead
    m.rows = slots + m.lat.result(m.size)
    return int(m.rows[-1])
