# SPDX-License-Identifier: Apache-2.0
"""Everything around block_stream: random Programs, DRAM, the program store, consumers, and the machine's progress."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from cocotb.triggers import FallingEdge
from dram import ReadPort, Space, Timing, join, step_reads
from resetting import start_in_reset
from unit import size_under_test

from codesign.schedule.design import MachineSize
from codesign.schedule.isa import PLANES, SLICE_BITS, WIDTH_BITS, Instruction, Opcode, WeightFormat, Width
from codesign.schedule.isa import Space as SpaceCode
from codesign.schedule.isa import Unit as Memory
from codesign.schedule.legal import violation

BLOCK_LATENCY = 3
MEMORY_LINES, BUFFER_LINES = 6000, 400


# ---- Programs ----


def random_program(size: MachineSize, rng: random.Random, length: int) -> list[Instruction]:
    """Legal instructions of every kind, each with a `fence` that is met before it runs."""
    out: list[Instruction] = []
    while len(out) < length:
        instruction = random_instruction(size, rng, len(out))
        assert violation(instruction, size) is None, (violation(instruction, size), instruction)
        out.append(instruction)
    return out


def random_instruction(size: MachineSize, rng: random.Random, index: int) -> Instruction:
    kind = rng.choice(list(Opcode))
    k, n, rows = rng.randint(1, 3), rng.randint(1, 3), rng.randint(1, 8)
    form = rng.choice(list(WeightFormat))
    fence = rng.choice([0, 0, rng.randint(0, index)])
    blocks = size.dense_blocks(n, k, PLANES[form])
    dense = Instruction(
        kind, weight_format=form, rows=rows, k_words=k, n_tiles=n, src_stride=k, dst_stride=3, blocks=blocks,
        fence=fence, mem_addr=rng.randrange(MEMORY_LINES - blocks * size.block_lines + 1), chain=rng.randint(0, 1),
    )  # fmt: skip
    if kind is Opcode.LOAD:
        unit, space = rng.choice([Memory.ACT, Memory.RES]), rng.choice(list(SpaceCode))
        per_block = size.block_act_words if unit is Memory.ACT else size.block_res_words
        words = rng.randint(1, 40)
        blocks = -(-words // per_block)
        end = (MEMORY_LINES if space is SpaceCode.MEMORY else BUFFER_LINES) - blocks * size.block_lines
        return Instruction(
            kind, space=space, unit=unit, words=words, blocks=blocks, mem_addr=rng.randrange(end + 1), fence=fence
        )
    if kind is Opcode.STORE:
        return Instruction(kind, space=SpaceCode.OUTPUT, words=rng.randint(1, 50), mem_addr=rng.randrange(100))
    if kind is Opcode.ATTENTION:
        return Instruction(
            kind, rows=rows, keys=7, num_heads=1, dim=16, src_stride=1, dst_stride=1, shift=1, shift2=1, fence=fence
        )
    if kind is Opcode.NORM:
        blocks = n * size.record_blocks
        return replace(dense, blocks=blocks, dim=16, shift=3, k_words=0, src_stride=n, weight_format=WeightFormat.INT8)
    if kind is Opcode.ROUTE:
        n, experts = 1, rng.randint(2, size.max_experts)
        blocks = size.dense_blocks(n, k, PLANES[form])
        return replace(dense, n_tiles=n, blocks=blocks, num_experts=experts, top_k=rng.randint(1, experts))
    if kind is Opcode.EXPERTS:
        return experts_instruction(size, rng, k, n, fence)
    return dense


def experts_instruction(size: MachineSize, rng: random.Random, k: int, n: int, fence: int) -> Instruction:
    experts, k2, n2 = rng.randint(1, size.max_experts), rng.randint(1, 2), rng.randint(1, 2)
    form = rng.choice([WeightFormat.INT8, WeightFormat.INT8, WeightFormat.INT2])
    codes = [rng.choice(list(Width)) if form is WeightFormat.INT8 else Width.STORED for _ in range(experts)]
    blocks = size.dense_blocks(n, k, PLANES[form]) + size.dense_blocks(n2, k2, PLANES[form])
    stride = max(k2, -(-n * size.pe // size.simd))
    return Instruction(
        Opcode.EXPERTS, weight_format=form, rows=4, k_words=k, n_tiles=n, k_words2=k2, n_tiles2=n2, src_stride=k,
        aux_stride=stride, dst_stride=n2, num_experts=experts, blocks=blocks, ahead=rng.randint(0, min(2, experts)),
        widths=sum(int(code) << (WIDTH_BITS * e) for e, code in enumerate(codes)), fence=fence, shift=1,
        mem_addr=rng.randrange(MEMORY_LINES - experts * blocks * size.block_lines + 1),
    )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Consecutive blocks of a space from a line on, and whether a block of ones follows."""

    line: int
    blocks: int
    ones: bool = False


def runs(i: Instruction, counts: list[int], size: MachineSize) -> list[Run]:
    """What the stream holds for an instruction."""
    if i.opcode in (Opcode.STORE, Opcode.ATTENTION):
        return []
    if i.opcode is not Opcode.EXPERTS:
        return [Run(i.mem_addr, i.blocks)]
    out: list[Run] = []
    for e in range(i.num_experts):
        line = i.mem_addr + e * i.blocks * size.block_lines
        code = Width(i.widths >> (WIDTH_BITS * e) & 3)
        if e >= i.ahead and counts[e] == 0:
            continue
        if code is Width.STORED:
            out.append(Run(line, i.blocks))
            continue
        for n_tiles, k_words in ((i.n_tiles, i.k_words), (i.n_tiles2, i.k_words2)):
            for _ in range(n_tiles):
                out.append(Run(line, size.record_blocks))
                line += size.record_blocks * size.block_lines
                for _ in range(k_words):
                    out.append(Run(line, SLICE_BITS[code], ones=True))
                    line += 8 * size.block_lines
    return out


# ---- the bench ----


@dataclass
class Bench:
    """Everything around block_stream: DRAM, program store, consumers, and the machine's progress."""

    dut: Any
    seed: int
    timing: Timing
    pop_percent: int = 60
    size: MachineSize = field(init=False)
    rng: random.Random = field(init=False)
    spaces: list[Space] = field(init=False)
    ports: list[ReadPort] = field(init=False)
    store: dict[int, int] = field(default_factory=dict)
    errors: int = 0
    cycle: int = 0

    def __post_init__(self) -> None:
        self.size, self.rng = size_under_test(), random.Random(self.seed)
        ports, rng = self.size.ports, self.rng
        self.spaces = []
        for third, lines in enumerate((MEMORY_LINES, BUFFER_LINES, BUFFER_LINES)):
            base = (3 * rng.randrange(1 << 28) + third) << 34  # more than four stripes apart
            stripe = 16 * rng.randrange(lines, 1 << 28)
            data = bytearray(rng.randbytes(lines * self.size.line_bytes))
            self.spaces.append(Space(base + 16 * rng.randrange(300), stripe, ports, data))
        self.ports = [ReadPort(m, self.spaces, self.timing, random.Random(self.seed + m)) for m in range(ports)]

    async def reset(self) -> None:
        dut = self.dut
        for name in ("start", "flush", "program_loaded", "gnt", "valid", "block_pop", "arready", "rvalid", "completed"):
            getattr(dut, f"{name}_i").value = 0
        for name, space in zip(("memory", "input", "output"), self.spaces, strict=True):
            getattr(dut, f"{name}_base_i").value = space.base
            getattr(dut, f"{name}_stripe_i").value = space.stripe
        await start_in_reset(dut)

    async def tick(self) -> None:
        """To the next falling edge; the memory's answers of the cycle before are replaced there."""
        step_reads(self.dut, self.ports)
        await FallingEdge(self.dut.clk_i)
        self.cycle += 1
        self.errors += int(self.dut.error_o.value)

    def put_program(self, program: list[Instruction], line: int) -> None:
        data = b"".join(i.encode() for i in program)
        at = line * self.size.line_bytes
        self.spaces[0].data[at : at + len(data)] = data
        self.dut.program_addr_i.value = line
        self.dut.num_instructions_i.value = len(program)

    def block(self, space: SpaceCode, line: int) -> int:
        at = line * self.size.line_bytes
        return int.from_bytes(self.spaces[space].data[at : at + self.size.block_bytes], "little")

    async def flush(self, cycles: int) -> None:
        """Gives the run up; the store forgets the Program."""
        self.dut.program_loaded_i.value = self.dut.gnt_i.value = self.dut.valid_i.value = self.dut.block_pop_i.value = 0
        self.dut.flush_i.value = 1
        for _ in range(cycles):
            await self.tick()
        self.dut.flush_i.value = 0
        for _ in range(2000):
            await self.tick()
            if self.dut.idle_o.value:
                break
        assert self.dut.idle_o.value
        assert not self.dut.block_avail_o.value
        assert not any(p.queue for p in self.ports), "idle with bursts outstanding"
        assert int(self.dut.state_o.value) == 0


class Execution:
    """One run of a Program: the program store's port, the pops, and which instructions are complete."""

    def __init__(self, bench: Bench, program: list[Instruction], line: int = 0) -> None:
        self.bench, self.program, size = bench, program, bench.size
        rng = bench.rng
        self.loaded = False
        self.asked: deque[int | None] = deque([None, None])
        """Indices on their way through the program store, MemLatency deep."""
        self.arriving: deque[tuple[int, int]] = deque()
        """(cycle, block) of pops whose data are to come."""
        self.completed, self.pause, self.blocks_seen = 0, 0, 0
        self.latest = -1
        """Instruction of the last block that was popped."""
        self.queues: int | None = None
        """The EXPERTS whose queues are known."""
        self.counts = [[rng.choice([0, 0, 3]) for _ in range(size.max_experts)] for _ in program]
        bench.put_program(program, line)
        self.program_lines = len(program) * 64 // size.line_bytes
        self.expected: deque[tuple[int, int | None, Run, int]] = deque()
        """(instruction, block or None for one that is not known yet, run, position)."""
        self.lines = self.program_lines
        for index, i in enumerate(program):
            for r in runs(i, self.counts[index], size):
                self.lines += r.blocks * size.block_lines
                self.expected.extend((index, None, r, b) for b in range(r.blocks + int(r.ones)))
        bench.store.clear()
        for port in bench.ports:
            port.beats = port.bursts = 0
        self.start_cycle = bench.cycle

    async def start(self) -> None:
        self.bench.dut.start_i.value = 1
        await self.step()
        self.bench.dut.start_i.value = 0

    async def step(self) -> None:
        """One cycle."""
        self._store()
        self._pops()
        self._progress()
        await self.bench.tick()

    async def finish(self, limit: int = 40000) -> int:
        """Until every instruction is complete; the cycles since the start."""
        for _ in range(limit):
            if self.completed == len(self.program) and not self.arriving:
                break
            await self.step()
        assert self.completed == len(self.program), f"stands at {self.completed}: {self.program[self.completed]}"
        cycles = self.bench.cycle - self.start_cycle
        for _ in range(60):  # the fetcher may still look at instructions that read nothing
            await self.step()
        for _ in range(40 * len(self.program)):
            if not self.bench.dut.state_o.value:
                break
            await self.step()
        assert not self.bench.dut.block_avail_o.value
        assert self.bench.dut.idle_o.value
        assert int(self.bench.dut.state_o.value) == 0
        assert [p.beats for p in self.bench.ports] == [self.lines] * self.bench.size.ports, "beats not asked for once"
        return cycles

    def _store(self) -> None:
        dut, rng, bits = self.bench.dut, self.bench.rng, 128 * self.bench.size.ports
        if dut.program_we_o.value:
            at = int(dut.program_waddr_o.value)
            assert at == len(self.bench.store)
            self.bench.store[at] = int(dut.program_line_o.value)
        if len(self.bench.store) == self.program_lines and not self.loaded and rng.randrange(3) == 0:
            self.loaded = True
            dut.program_loaded_i.value = 1
            held = join([self.bench.store[i] for i in range(self.program_lines)], bits)
            want = int.from_bytes(b"".join(i.encode() for i in self.program), "little")
            assert held == want, "the Program in the store"
        grant = bool(dut.req_o.value) and rng.randrange(2) == 0
        dut.gnt_i.value = int(grant)
        index = self.asked.popleft()
        dut.valid_i.value = int(index is not None)
        dut.instr_i.value = (
            rng.getrandbits(512) if index is None else int.from_bytes(self.program[index].encode(), "little")
        )
        self.asked.append(int(dut.index_o.value) if grant else None)

    def _pops(self) -> None:
        dut, bench = self.bench.dut, self.bench
        if self.arriving and self.arriving[0][0] == bench.cycle:
            _, want = self.arriving.popleft()
            assert int(dut.block_o.value) == want, f"block {self.blocks_seen}"
            self.blocks_seen += 1
        pop = bool(dut.block_avail_o.value) and bench.rng.randrange(100) < bench.pop_percent
        if dut.block_avail_o.value:
            assert self.expected, "a block too many"
            pop = pop and self.expected[0][0] <= self.completed + 1  # units take at most the instruction after
        if pop:
            index, _, r, position = self.expected.popleft()
            self.latest = index
            ones = (1 << 8 * bench.size.block_bytes) - 1
            space = self.program[index].space if self.program[index].opcode is Opcode.LOAD else SpaceCode.MEMORY
            block = ones if position == r.blocks else bench.block(space, r.line + position * bench.size.block_lines)
            self.arriving.append((bench.cycle + BLOCK_LATENCY, block))
        dut.block_pop_i.value = int(pop)

    def _progress(self) -> None:
        """An instruction is complete some cycles after its last pop; queues and the output buffer change only then."""
        bench, size = self.bench, self.bench.size
        if (
            self.loaded
            and self.completed < len(self.program)
            and not (self.expected and self.expected[0][0] <= self.completed)
        ):
            self.pause = self.pause or bench.rng.choice([1, 1, 5, 40])
            self.pause -= 1
            if self.pause == 0:
                self.completed += 1
        bench.dut.completed_i.value = self.completed
        waits = [k for k, i in enumerate(self.program) if i.opcode is Opcode.EXPERTS and k >= self.completed >= i.fence]
        # The queues are those of the EXPERTS to come; before its fence they hold anything. After it they stay until a
        # block behind it has been popped: only a ROUTE fills them again.
        if waits:
            self.queues = waits[0]
        elif self.queues is not None and self.latest > self.queues:
            self.queues = None
        known = self.queues is not None
        counts = self.counts[self.queues] if known else [bench.rng.randrange(2) for _ in range(size.max_experts)]
        bench.dut.counts_i.value = join(counts, 16)


def experts_apart(program: list[Instruction]) -> list[Instruction]:
    """Sets the fence of each EXPERTS so that the queues of two of them are never known at the same time."""
    out, last = [], 0
    for index, i in enumerate(program):
        if i.opcode is Opcode.EXPERTS:
            i = replace(i, fence=min(max(i.fence, last), index))
            last = index + 1
        out.append(i)
    return out
