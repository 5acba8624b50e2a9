# SPDX-License-Identifier: Apache-2.0
"""block_stream against docs/machine.md: random Programs over striped DRAM and timing, errors, flushes, throughput."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import cocotb
import pytest
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge
from dram import ReadPort, Space, Timing, join, step_reads
from unit import SIZES, Unit, run, size_under_test

from codesign.schedule.design import MachineSize
from codesign.schedule.isa import PLANES, SLICE_BITS, WIDTH_BITS, Instruction, Opcode, WeightFormat, Width
from codesign.schedule.isa import Space as SpaceCode
from codesign.schedule.isa import Unit as Memory
from codesign.schedule.legal import violation

UNIT = Unit(
    "tb_block_stream",
    ("instr_check", "sdp_ram", "sync_fifo", "beat_fifo", "axi_reader", "line_join", "collector", "block_fifo",
     "fetcher", "block_stream"),
)  # fmt: skip
BLOCK_LATENCY = 3
MEMORY_LINES, BUFFER_LINES = 6000, 400


@pytest.mark.parametrize("name", SIZES)
def test_block_stream(name: str) -> None:
    run(UNIT, name, "test_block_stream")


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
        ports, rng, base = self.size.ports, self.rng, 0x8_0000_0000
        self.spaces = []
        for lines in (MEMORY_LINES, BUFFER_LINES, BUFFER_LINES):
            stripe = 16 * (lines + rng.randrange(300))
            data = bytearray(rng.randbytes(lines * self.size.line_bytes))
            self.spaces.append(Space(base + 16 * rng.randrange(300), stripe, ports, data))
            base += 0x1000_0000
        self.ports = [ReadPort(m, self.spaces, self.timing, random.Random(self.seed + m)) for m in range(ports)]

    async def reset(self) -> None:
        dut = self.dut
        for name in ("start", "flush", "program_loaded", "gnt", "valid", "block_pop", "arready", "rvalid", "completed"):
            getattr(dut, f"{name}_i").value = 0
        for name, space in zip(("memory", "input", "output"), self.spaces, strict=True):
            getattr(dut, f"{name}_base_i").value = space.base
            getattr(dut, f"{name}_stripe_i").value = space.stripe
        dut.rst_ni.value = 0
        Clock(dut.clk_i, 2, unit="ns").start()
        await ClockCycles(dut.clk_i, 4)
        await FallingEdge(dut.clk_i)
        dut.rst_ni.value = 1
        await FallingEdge(dut.clk_i)

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
        # The queues are those of the EXPERTS to come; before its fence they hold anything.
        counts = self.counts[waits[0]] if waits else [bench.rng.randrange(2) for _ in range(size.max_experts)]
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


@cocotb.test()
async def random_programs(dut: Any) -> None:
    """Every block comes once, in order, with its data; nothing else is read; one run after another."""
    for seed, timing, pops in ((1, Timing(), 60), (2, Timing(ideal=True), 100), (3, Timing((1, 5), 0, 0), 15),
                               (4, Timing((100, 300), 80, 60), 90)):  # fmt: skip
        bench = Bench(dut, seed, timing, pops)
        if seed == 1:
            await bench.reset()
        for name, space in zip(("memory", "input", "output"), bench.spaces, strict=True):
            getattr(dut, f"{name}_base_i").value = space.base
            getattr(dut, f"{name}_stripe_i").value = space.stripe
        for length in (1, bench.rng.randrange(10, 24)):
            program = experts_apart(random_program(bench.size, bench.rng, length))
            dut.program_loaded_i.value = 0
            execution = Execution(bench, program, bench.rng.randrange(MEMORY_LINES - 100))
            await execution.start()
            await execution.finish()
        assert bench.errors == 0
        assert max(p.most for p in bench.ports) <= 16


@cocotb.test()
async def written_by_the_run(dut: Any) -> None:
    """A LOAD from OUTPUT is not requested before its fence: the STORE's data stand there only then."""
    bench = Bench(dut, 11, Timing((1, 10)))
    await bench.reset()
    size = bench.size
    words = 2 * size.block_act_words
    load = Instruction(Opcode.LOAD, space=SpaceCode.OUTPUT, words=words, blocks=2, mem_addr=7)
    linear = Instruction(Opcode.NORM, rows=1, n_tiles=1, dim=16, shift=3, src_stride=1, dst_stride=1,
                         blocks=size.record_blocks)  # fmt: skip
    store = Instruction(Opcode.STORE, space=SpaceCode.OUTPUT, words=words, mem_addr=7)
    program = [linear, store, replace(load, fence=2)]
    execution = Execution(bench, program, 100)
    await execution.start()
    fresh = bytes(bench.rng.randbytes(2 * size.block_bytes))
    while execution.completed < 2:
        if execution.completed == 1:
            assert all(not p.queue for p in bench.ports), "asked for before the STORE is complete"
        await execution.step()
    at = 7 * size.line_bytes
    bench.spaces[2].data[at : at + len(fresh)] = fresh  # the STORE's last response is in
    await execution.finish()


@cocotb.test()
async def stops_at_an_illegal_instruction(dut: Any) -> None:
    """Nothing is read for it or behind it; after a flush the next run is whole."""
    bench = Bench(dut, 12, Timing((1, 10)))
    await bench.reset()
    rng, size = bench.rng, bench.size
    program = random_program(size, rng, 12)
    bad = rng.randrange(3, 9)
    broken = [*program]
    broken[bad] = Instruction(Opcode.LINEAR, rows=1, k_words=1, n_tiles=1, src_stride=1, dst_stride=1, blocks=3)
    assert violation(broken[bad], size) is not None
    execution = Execution(bench, experts_apart(broken), 50)
    short = Execution(bench, experts_apart(broken)[:bad], 3000)  # what may be read: all before it
    lines = short.lines - short.program_lines + execution.program_lines
    execution.counts[:bad] = short.counts
    execution.expected = deque(e for e in short.expected)
    bench.put_program(broken, 50)
    await execution.start()
    while execution.completed < len(program) or execution.arriving:  # as if execution went on, past every fence
        await execution.step()
    for _ in range(600):
        await execution.step()
    assert [p.beats for p in bench.ports] == [lines] * size.ports
    assert int(dut.state_o.value) == 0
    await bench.flush(1)
    good = Execution(bench, experts_apart(program), 10)
    await good.start()
    await good.finish()


@cocotb.test()
async def flush_in_the_middle(dut: Any) -> None:
    """Given up anywhere, by a pulse or a long flush; the next run gets nothing of the one before."""
    bench = Bench(dut, 13, Timing((1, 80)))
    await bench.reset()
    for attempt in range(12):
        program = experts_apart(random_program(bench.size, bench.rng, 10))
        execution = Execution(bench, program, bench.rng.randrange(200))
        await execution.start()
        for _ in range(bench.rng.randrange(400) if attempt else 3):
            await execution.step()
        await bench.flush(bench.rng.choice([1, 1, 200]))
    program = experts_apart(random_program(bench.size, bench.rng, 12))
    execution = Execution(bench, program)
    await execution.start()
    await execution.finish()


@cocotb.test()
async def error_responses(dut: Any) -> None:
    """Each error response is reported once and the stream goes on, so that the machine can stop in order."""
    bench = Bench(dut, 14, Timing())
    await bench.reset()
    program = experts_apart(random_program(bench.size, bench.rng, 8))
    execution = Execution(bench, program)
    bench.ports[-1].fail_beat = execution.lines // 2
    await execution.start()
    await execution.finish()
    assert bench.errors == 1


# ---- speed ----


def long_experts(size: MachineSize, code: Width, rng: random.Random) -> Instruction:
    """Two experts of many tiles, all with tokens."""
    k = n = 2
    while 2 * 2 * size.dense_blocks(n, k + 1, 8) * size.block_lines < MEMORY_LINES - 100 and k < 6:
        k += 1
    blocks = 2 * size.dense_blocks(n, k, 8)
    return Instruction(
        Opcode.EXPERTS, rows=4, k_words=k, n_tiles=n, k_words2=k, n_tiles2=n, src_stride=k, aux_stride=k, dst_stride=n,
        num_experts=2, ahead=2, blocks=blocks, widths=int(code) * 5, shift=1, mem_addr=rng.randrange(50),
    )  # fmt: skip


@cocotb.test()
async def throughput(dut: Any) -> None:
    """An ideal memory of latency 40: nearly a line a cycle for whole tiles; a cycle more for each block of ones."""
    bench = Bench(dut, 15, Timing((40, 40), ideal=True), pop_percent=100)
    await bench.reset()
    size = bench.size
    for code in Width:
        dut.program_loaded_i.value = 0
        execution = Execution(bench, [long_experts(size, code, bench.rng)], 5000)
        execution.counts = [[1] * size.max_experts]
        bench.ports[0].first, bench.ports[0].now = None, 0
        await execution.start()
        while not execution.arriving:
            await execution.step()
        assert bench.ports[0].first is not None
        first, start = bench.ports[0].first, bench.cycle
        last = execution.start_cycle + await execution.finish()
        lines = execution.lines - execution.program_lines
        planes = SLICE_BITS.get(code, 8)
        rate = lines / (last - start + size.block_lines)
        dut._log.info(
            f"{code.name}: first address {first} cycles after start, first block after {start - execution.start_cycle},"
            f" {lines * size.line_bytes} bytes, {rate * size.line_bytes:.1f} bytes a cycle of {size.line_bytes}"
        )
        ideal = 1.0 if code is Width.STORED else planes * size.block_lines / (planes * size.block_lines + 1)
        floor = 0.9 if size.block_lines > 1 or code is Width.STORED else 0.5
        assert rate > floor * ideal, (code, rate)
