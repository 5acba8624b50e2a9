# SPDX-License-Identifier: Apache-2.0
"""Clock cycles of a Program without simulating the machine: passes, tiles and blocks instead of cycles.

The model follows docs/machine.md at the grain of a weight tile: blocks arrive from DRAM at its sustained rate, into
FIFOs of limited depth, in Program order (`timing_fetch`, `timing_stream`); a tile's planes load while the tile before
computes, and the array issues one slot a cycle (`timing_array`); rows wait for the rows they read; NORM and ROUTE run
beside the array. All times are cycles of the run, as the RTL's traces have them; latencies are counted in the RTL's
sources. The only input beside Program and machine is how many tokens each expert gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codesign.schedule.design import MachineSize
from codesign.schedule.isa import INSTRUCTION_BITS, PLANES, SLICE_BITS, Instruction, Opcode, Post, Unit, Width
from codesign.schedule.stream import ceil_div
from codesign.schedule.timing_array import Array, Pass
from codesign.schedule.timing_fetch import Fetcher
from codesign.schedule.timing_stream import Stream, Supply, Times

__all__ = ["InstructionTime", "Lacking", "ProgramTime", "Shares", "Supply", "estimate"]

_START, _END = 10, 7
"""From the start to the request of the Program's first line; from the last completion to the end of the run."""
_STORED = 5
"""From a line of the Program at the ports to its being in the store."""
_CHECK = 20
"""From one instruction's being taken up for dispatch to the next one's: it is fetched and checked meanwhile."""
_POP = 2
"""From the start of LOAD or NORM to its first pop."""
_LOADED = {Unit.ACT: 8, Unit.RES: 7}
"""From a LOAD's last word leaving its block to completion."""
_NORMED, _RECORDS = 37, 21
"""To a row's result being readable: from reading it, beside its words and the adder tree's levels; from its records."""
_STORE, _STORE_END = 7, 2
"""From a STORE's start to its first beat, beside the ports; from the last one to completion, beside the memory."""


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


def estimate(
    program: Sequence[Instruction],
    size: MachineSize,
    supply: Supply,
    tokens: Sequence[Sequence[int]],
    lacking: Lacking = Lacking(),
) -> ProgramTime:
    """Cycles of a Program. `tokens[i]`: tokens of each expert in the i-th EXPERTS instruction."""
    stream = Stream(size, supply)
    lines = INSTRUCTION_BITS // 8 * len(program) // size.line_bytes
    arrivals = stream.program(lines, _START) + _STORED
    first = int(arrivals[INSTRUCTION_BITS // 8 // size.line_bytes - 1])
    fetcher = Fetcher(program, tokens, size, stream, int(arrivals[-1]) + 2)
    machine = _Machine(size, stream, Array(size, stream), fetcher, lacking, moved=first - 1)
    queues = iter(tokens)
    times: list[InstructionTime] = []
    front = 0
    array = machine.array
    for instruction in program:
        counted = front, array.compute, array.memory, array.stall
        machine.run(instruction, next(queues) if instruction.opcode is Opcode.EXPERTS else ())
        alone = instruction.opcode in (Opcode.LOAD, Opcode.STORE)
        last = len(times) + 1 == len(program)
        front = max(front, array.slot, machine.complete if alone or last else 0) + (_END if last else 0)
        array.slot = max(array.slot, front)
        now = front, array.compute, array.memory, array.stall
        cycles, compute, memory, stall = (n - c for n, c in zip(now, counted, strict=True))
        if alone:
            memory = cycles
        times.append(InstructionTime(cycles, compute, memory, cycles - compute - memory - stall, stall))
    return ProgramTime(front, tuple(times))


@dataclass
class _Machine:
    size: MachineSize
    stream: Stream
    array: Array
    fetcher: Fetcher
    lacking: Lacking
    moved: int
    """When the latest instruction was taken up for dispatch."""
    idle: int = 0
    """When the next one can be taken up, but for its check."""
    complete: int = 0
    """When every instruction so far is complete."""
    norm_tiles: int = 0
    """Words of a row, if the latest instruction is a NORM."""
    norm_free: int = 0
    """When the norm unit has no row to write and none that the array has to see."""

    def run(self, i: Instruction, tokens: Sequence[int]) -> None:
        """Runs one instruction. `tokens`: of each expert."""
        self.fetcher.advance()
        start = self._dispatch(i)
        if not i.chain:
            self.array.rows = np.zeros(0, dtype=np.int64)
        self.idle = start + 1
        if i.opcode is Opcode.LOAD:
            end = self._load(i, start)
        elif i.opcode is Opcode.STORE:
            end = self._store(i, start)
        elif i.opcode is Opcode.NORM:
            end = self._norm(i, start)
        elif i.opcode is Opcode.ATTENTION:
            end = self._attention(i, start)
        elif i.opcode is Opcode.EXPERTS:
            end = self._experts(i, start, tokens)
        else:
            end = self._linear(i, start)
        self.norm_tiles = i.n_tiles if i.opcode is Opcode.NORM else 0
        self.complete = max(self.complete + 1, end)
        self.fetcher.completed.append(self.complete)
        if i.opcode in (Opcode.LOAD, Opcode.STORE, Opcode.ROUTE):
            self.idle = self.complete + 1

    def _dispatch(self, i: Instruction) -> int:
        """When the instruction's unit starts."""
        self.moved = max(self.moved + _CHECK, self.idle)
        start = self.moved + 2
        if not i.chain:
            start = max(start, self.complete + 1)
        return max(start, self.norm_free) if i.opcode is Opcode.NORM else start

    def _load(self, i: Instruction, start: int) -> int:
        """One memory word a cycle, as its blocks arrive."""
        per_block = self.size.block_act_words if i.unit is Unit.ACT else self.size.block_res_words
        time = start + _POP
        for _ in range(i.blocks):
            time = self.stream.pop(time) + per_block
        return time - 1 + _LOADED[i.unit]

    def _store(self, i: Instruction, start: int) -> int:
        """One beat a cycle (queues: an entry), whole lines; then the write responses."""
        beats = {Unit.ACT: self.size.act_beats * i.words, Unit.RES: self.size.res_beats * i.words, Unit.QUEUE: i.words}
        words = i.words // 4 if i.unit is Unit.QUEUE else beats[i.unit]
        lines = ceil_div(words, self.size.ports)
        return self.stream.write(start + _STORE + self.size.ports + beats[i.unit], lines) + _STORE_END

    def _norm(self, i: Instruction, start: int) -> int:
        """A RES word a cycle; rows wait for the instruction before when chained."""
        record = start + _POP - 1
        for _ in range(i.n_tiles * self.size.record_blocks):
            record = self.stream.pop(record + 1)
        ready = self._ready(i, start + 1)
        steps = np.arange(i.rows, dtype=np.int64) * i.n_tiles
        read = np.maximum.accumulate(ready - steps) + steps
        levels = (self.size.pe - 1).bit_length()
        done = np.maximum(read + 2 * i.n_tiles + _NORMED + levels, record + _RECORDS + steps)
        self.array.rows = done
        self.norm_free = int(done[-1]) + 2
        return int(done[-1]) + 1

    def _ready(self, i: Instruction, start: int) -> Times:
        """When each row that the instruction reads is there."""
        rows = self.array.rows
        return np.maximum(rows, start) if len(rows) == i.rows else np.full(i.rows, start, dtype=np.int64)

    def _linear(self, i: Instruction, start: int) -> int:
        array, share = self.array, self.lacking.shares.dense
        accepted, rows = array.accept(start + 1), self._ready(i, 0)
        if i.chain and self.norm_tiles:
            rows = self._behind(i, rows)
        array.dense(self._pass(i.rows, i.n_tiles, i.k_words, PLANES[i.weight_format], share), accepted, rows)
        if i.chain and self.norm_tiles:
            self.norm_free = max(self.norm_free, array.seen + 3)
        self.idle = accepted + 1
        if i.opcode is Opcode.LINEAR and i.post is Post.GELU:
            self._gelu(i.rows, i.n_tiles)
        end = max(array.landed + 2, int(array.rows[-1]) + 1)
        if i.opcode is Opcode.ROUTE:
            end = max(end, self._route(i))
            array.rows = np.zeros(0, dtype=np.int64)
        return end

    def _behind(self, i: Instruction, rows: Times) -> Times:
        """When NORM's rows can be read, if results that the pass makes of the first ones are written among them."""
        if i.opcode is Opcode.ROUTE or i.k_words > 1 or i.post not in (Post.INT8, Post.GELU):
            return rows
        free = np.arange(i.rows) * (self.norm_tiles + 1) + int(rows[0]) - self.array.result // self.norm_tiles
        return np.maximum(rows, free)

    def _pass(self, rows: int, n_tiles: int, k_words: int, planes: int, share: float) -> Pass:
        return Pass(rows, n_tiles, k_words, planes, share, self.size.pe if self.lacking.row_loads else 0)

    def _gelu(self, rows: int, n_tiles: int) -> None:
        """A pass of its own, where GELU is one."""
        if self.lacking.gelu_pass:
            self.array.passes_over(rows * n_tiles)

    def _route(self, i: Instruction) -> int:
        """From the rows of logits to the final queues (rtl/router.sv: a ring of picks, then the counts)."""
        levels = (self.size.max_experts - 1).bit_length()
        ring = 1 + max(2, ceil_div(levels, 2))
        steps = np.arange(i.rows) * i.top_k
        enter = int(np.max(self.array.rows - steps) + steps[-1]) + 3  # a row is in the ring for `top_k` of its cycles
        pick = max(10 + max(1, levels), (i.top_k - 1) * ring + 4)
        return enter + ring + pick + i.top_k + self.size.max_experts + 5

    def _attention(self, i: Instruction, start: int) -> int:
        array, size, share = self.array, self.size, self.lacking.shares.attention
        tiles, key_words = ceil_div(i.keys, size.pe), ceil_div(i.keys, size.simd)
        at = start + 2 + tiles  # the issuer counts the tiles of keys
        for head in range(i.num_heads):
            columns = head * i.dim % 16 + i.dim
            windows, groups = ceil_div(columns, size.simd), ceil_div(columns, size.pe)
            accepted = array.accept(at, windows)
            array.keys(i.rows, tiles * windows, size.pe, windows, accepted, share, wait=False)
            if self.lacking.softmax_passes:
                array.passes_over(self.lacking.softmax_passes * i.rows * key_words)
            accepted = array.accept(accepted + 2, groups)
            array.keys(i.rows, groups * key_words, size.simd, groups, accepted, share, wait=True)
            at = accepted + 2
        self.idle = accepted + 1
        return array.landed + 2

    def _experts(self, i: Instruction, start: int, tokens: Sequence[int]) -> int:
        """Two passes an expert with tokens; the first `ahead` are on chip early, whether or not they have any."""
        array, share = self.array, self.lacking.shares.experts
        at, end = start + 3, start + 5
        for e, count in enumerate(tokens):
            width = i.width_of(e)
            if not count:
                if e < i.ahead:
                    at = array.accept(at + 2)
                    array.drop(self._expert_blocks(i, e), at)
                at += 1
                continue
            planes = PLANES[i.weight_format] if width is Width.STORED else SLICE_BITS[width] + 1
            accepted = array.accept(at + 2)
            array.dense(self._pass(count, i.n_tiles, i.k_words, planes, share), accepted, None)
            self._gelu(count, i.n_tiles)
            accepted = array.accept(accepted + 2)
            array.dense(self._pass(count, i.n_tiles2, i.k_words2, planes, share), accepted, array.rows)
            at = accepted + 1
        self.idle = at
        return max(end, array.landed + 2)

    def _expert_blocks(self, i: Instruction, expert: int) -> int:
        """In the FIFO, of one expert."""
        tiles = i.n_tiles * i.k_words + i.n_tiles2 * i.k_words2
        ones = 0 if i.width_of(expert) is Width.STORED else tiles
        return i.blocks_of(expert, self.size.record_blocks) + ones
