# SPDX-License-Identifier: Apache-2.0
"""load_unit and store_unit on the memories: what a LOAD wrote comes back by a STORE, with random timing everywhere."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace
from typing import Any

import cocotb
import pytest
from cocotb.triggers import FallingEdge, ReadOnly
from dram import Space, Timing, WritePort, step_writes
from resetting import start_in_reset
from unit import SIZES, Unit, run, size_under_test

from codesign.schedule.design import MachineSize
from codesign.schedule.isa import Instruction, Opcode
from codesign.schedule.isa import Space as SpaceCode
from codesign.schedule.isa import Unit as Memory
from codesign.schedule.legal import violation

UNIT = Unit(
    "tb_load_store",
    ("sdp_ram", "tdp_ram", "sync_fifo", "act_memory", "res_memory", "axi_writer", "load_unit", "store_unit"),
)
BLOCK_LATENCY, MEM_LATENCY = 3, 2
LINES = 1500


@pytest.mark.parametrize("name", SIZES)
def test_load_store(name: str) -> None:
    run(UNIT, name, "test_load_store")


class Bench:
    """DRAM, the block FIFO (with a stranger's blocks behind the LOAD's), the queue memory, other writers of ACT."""

    def __init__(self, dut: Any, seed: int, timing: Timing, busy: int = 40) -> None:
        self.dut, self.size, self.rng, self.busy = dut, size_under_test(), random.Random(seed), busy
        size = self.size
        stripe = 16 * (LINES + self.rng.randrange(100))
        self.space = Space(16 * self.rng.randrange(1 << 59), stripe, size.ports, bytearray(LINES * size.line_bytes))
        self.ports = [WritePort(m, self.space, timing, random.Random(seed + m)) for m in range(size.ports)]
        self.queue = [self.rng.getrandbits(32) for _ in range(size.max_experts * (size.max_rows + 1))]
        self.entries: deque[int | None] = deque([None] * MEM_LATENCY)
        self.blocks: deque[int] = deque()
        self.bus: deque[int | None] = deque([None] * BLOCK_LATENCY)
        self.turn = False
        self.pops = self.errors = self.cycle = 0

    async def reset(self) -> None:
        dut = self.dut
        names = ("load_start", "store_start", "flush", "block_avail", "hold", "awready", "wready", "bvalid", "bresp")
        for name in names:
            getattr(dut, f"{name}_i").value = 0
        dut.output_base_i.value, dut.output_stripe_i.value = self.space.base, self.space.stripe
        await start_in_reset(dut)

    async def step(self) -> None:
        """One cycle."""
        dut, rng = self.dut, self.rng
        step_writes(dut, self.ports)
        dut.hold_i.value = int(rng.randrange(100) < self.busy)
        entry = self.entries.popleft()
        dut.queue_data_i.value = rng.getrandbits(32) if entry is None else entry
        at = int(dut.queue_addr_o.value)
        self.entries.append((self.queue[at] if at < len(self.queue) else 0xDEAD) if dut.queue_ren_o.value else None)
        # The pop and the end of the turn follow from avail in the same cycle.
        dut.block_avail_i.value = int(self.turn and bool(self.blocks) and rng.randrange(100) >= self.busy)
        arrived = self.bus.popleft()
        if arrived is not None:
            dut.block_i.value = arrived
        await settled()
        popped: int | None = None
        if dut.block_pop_o.value:
            assert dut.block_avail_i.value
            popped = self.blocks.popleft()
            self.pops += 1
        elif not self.turn and rng.randrange(100) >= self.busy:
            popped = rng.getrandbits(8 * self.size.block_bytes)  # the next consumer pops as soon as it may
        if dut.block_done_o.value:
            assert self.turn
            self.turn = False
        self.bus.append(popped)
        self.errors += int(dut.error_o.value)
        await FallingEdge(dut.clk_i)
        self.cycle += 1

    async def pulse(self, signal: str, instruction: Instruction | None = None) -> None:
        handle = getattr(self.dut, signal)
        if instruction is not None:
            assert violation(instruction, self.size) is None, violation(instruction, self.size)
            self.dut.instr_i.value = int.from_bytes(instruction.encode(), "little")
        handle.value = 1
        await self.step()
        handle.value = 0
        self.dut.instr_i.value = self.rng.getrandbits(512)  # nobody holds it

    async def wait(self, signal: str, limit: int = 30000) -> int:
        start = self.cycle
        for _ in range(limit):
            if getattr(self.dut, signal).value:
                return self.cycle - start
            await self.step()
        raise AssertionError(f"{signal} does not come")

    async def load(self, unit: Memory, base: int, data: bytes) -> int:
        """Writes whole words; returns the cycles."""
        size = self.size
        word_bytes = size.simd if unit is Memory.ACT else 2 * size.pe
        blocks = -(-len(data) // size.block_bytes)
        padded = data + self.rng.randbytes(blocks * size.block_bytes - len(data))
        self.blocks = deque(
            int.from_bytes(padded[i * size.block_bytes : (i + 1) * size.block_bytes], "little") for i in range(blocks)
        )
        self.pops, self.turn = 0, True
        words = len(data) // word_bytes
        await self.pulse("load_start_i", Instruction(Opcode.LOAD, unit=unit, words=words, blocks=blocks, dst_base=base))
        cycles = await self.wait("load_done_o")
        assert (self.pops, self.turn) == (blocks, False)
        await self.step()
        assert int(self.dut.load_state_o.value) == 0
        return cycles

    async def store(self, unit: Memory, base: int, words: int, line: int) -> int:
        """Returns the cycles."""
        instruction = Instruction(
            Opcode.STORE, space=SpaceCode.OUTPUT, unit=unit, src_base=base, words=words, mem_addr=line
        )
        await self.pulse("store_start_i", instruction)
        cycles = await self.wait("store_done_o")
        assert all(p.quiet for p in self.ports), "done before all responses are in"
        await self.step()
        assert int(self.dut.store_state_o.value) == 0
        assert self.dut.store_idle_o.value
        return cycles

    def lines(self, line: int, data: bytes) -> bytes:
        """The space as a STORE of `data` has to leave it."""
        data += bytes(-len(data) % self.size.line_bytes)
        want = bytearray(self.space.data)
        at = line * self.size.line_bytes
        want[at : at + len(data)] = data
        return bytes(want)


async def settled() -> None:
    """Until the values just set have gone through the logic."""
    await ReadOnly()


def word_bytes(unit: Memory, size: MachineSize) -> int:
    return size.simd if unit is Memory.ACT else 2 * size.pe


@cocotb.test()
async def there_and_back(dut: Any) -> None:
    """Random words of ACT and RES; STORE fills its last line with zeros and writes nothing else."""
    for seed, timing, busy in ((1, Timing(), 40), (2, Timing(ideal=True), 0), (3, Timing((50, 200), 70, 70), 80)):
        bench = Bench(dut, seed, timing, busy)
        if seed == 1:
            await bench.reset()
        size, rng = bench.size, bench.rng
        dut.output_base_i.value, dut.output_stripe_i.value = bench.space.base, bench.space.stripe
        bench.space.data[:] = rng.randbytes(len(bench.space.data))
        model = {Memory.ACT: bytearray(), Memory.RES: bytearray()}
        for unit, depth in ((Memory.ACT, size.act_words), (Memory.RES, size.res_words)):
            model[unit] = bytearray(rng.randbytes(depth * word_bytes(unit, size)))
            await bench.load(unit, 0, bytes(model[unit]))
        for _ in range(8):
            unit = rng.choice([Memory.ACT, Memory.RES])
            width = word_bytes(unit, size)
            depth = len(model[unit]) // width
            words = rng.choice([1, 2, rng.randint(1, 40)])
            base = rng.randrange(depth - words + 1)
            data = rng.randbytes(words * width)
            await bench.load(unit, base, data)
            model[unit][base * width : (base + words) * width] = data
            want = bench.lines(0, data)
            await bench.store(unit, base, words, 0)
            assert bench.space.data == want
            words = rng.choice([1, 3, rng.randint(1, depth // 2), depth - 1])
            base, line = rng.randrange(depth - words + 1), rng.randrange(20)
            want = bench.lines(line, bytes(model[unit][base * width : (base + words) * width]))
            await bench.store(unit, base, words, line)
            assert bench.space.data == want
        assert bench.errors == 0


@cocotb.test()
async def queues(dut: Any) -> None:
    """Entries four to a beat; those beyond the last are 0."""
    bench = Bench(dut, 4, Timing())
    await bench.reset()
    depth = len(bench.queue)
    for base, words in ((0, 4), (5, 40), (0, -(-depth // 4) * 4), (depth - 4, 4)):
        entries = [*bench.queue, 0, 0, 0, 0][base : base + words]
        want = bench.lines(9, b"".join(e.to_bytes(4, "little") for e in entries))
        await bench.store(Memory.QUEUE, base, words, 9)
        assert bench.space.data == want


@cocotb.test()
async def write_errors(dut: Any) -> None:
    """An error response is reported once, the STORE completes."""
    bench = Bench(dut, 5, Timing())
    await bench.reset()
    await bench.load(Memory.ACT, 0, bench.rng.randbytes(bench.size.act_words * bench.size.simd))
    bench.ports[-1].fail_burst = 1
    await bench.store(Memory.ACT, 0, bench.size.act_words - 1, 250)
    assert bench.errors == (1 if bench.ports[-1].bursts > 1 else 0)
    for port in bench.ports:
        port.fail_burst = port.bursts
    await bench.store(Memory.ACT, 0, bench.size.ports, 3)
    assert bench.errors >= len(bench.ports)


@cocotb.test()
async def flush_in_the_middle(dut: Any) -> None:
    """Begun bursts are completed without writing; the next STORE is whole."""
    bench = Bench(dut, 6, Timing((1, 60)))
    await bench.reset()
    size, rng = bench.size, bench.rng
    data = rng.randbytes(size.act_words * size.simd)
    await bench.load(Memory.ACT, 0, data)
    for attempt in range(15):
        before = bytes(bench.space.data)
        words = size.act_words - 1
        full = bench.lines(2, data[: words * size.simd])
        instruction = Instruction(Opcode.STORE, space=SpaceCode.OUTPUT, words=words, mem_addr=2)
        await bench.pulse("store_start_i", instruction)
        for _ in range(rng.randrange(300) if attempt else 1):
            await bench.step()
        dut.flush_i.value = 1
        for _ in range(rng.choice([1, 1, 100])):
            await bench.step()
        dut.flush_i.value = 0
        await bench.step()
        await bench.wait("store_idle_o", 1000)
        assert all(p.quiet for p in bench.ports)
        assert all(got in (a, b) for got, a, b in zip(bench.space.data, before, full, strict=True))
        assert not dut.store_done_o.value
        bench.space.data[:] = rng.randbytes(len(bench.space.data))
        want = bench.lines(70, data[size.simd : 6 * size.simd])
        await bench.store(Memory.ACT, 1, 5, 70)
        assert bench.space.data == want


@cocotb.test()
async def soft_reset_of_a_load(dut: Any) -> None:
    """A LOAD given up by reset leaves nothing behind."""
    bench = Bench(dut, 7, Timing())
    await bench.reset()
    size, rng = bench.size, bench.rng
    for unit in (Memory.ACT, Memory.RES, Memory.ACT):
        bench.blocks, bench.turn = deque(rng.getrandbits(8 * size.block_bytes) for _ in range(9)), True
        words = 9 * (size.block_act_words if unit is Memory.ACT else size.block_res_words)
        start = replace(Instruction(Opcode.LOAD, unit=unit, words=words), blocks=9)
        await bench.pulse("load_start_i", start)
        for _ in range(rng.randrange(3, 15)):
            await bench.step()
        dut.rst_ni.value = 0
        bench.turn = False
        await bench.step()
        dut.rst_ni.value = 1
        for _ in range(5):
            await bench.step()
        data = rng.randbytes(7 * size.simd)
        await bench.load(Memory.ACT, 20, data)
        want = bench.lines(0, data)
        await bench.store(Memory.ACT, 20, 7, 0)
        assert bench.space.data == want


@cocotb.test()
async def speed(dut: Any) -> None:
    """A word a cycle in, a beat a cycle out."""
    bench = Bench(dut, 8, Timing((10, 10), ideal=True), busy=0)
    await bench.reset()
    size = bench.size
    for unit, words in ((Memory.ACT, size.act_words - 1), (Memory.RES, size.res_words)):
        data = bench.rng.randbytes(words * word_bytes(unit, size))
        cycles = await bench.load(unit, 0, data)
        dut._log.info(f"LOAD {unit.name}: {words} words in {cycles} cycles")
        assert cycles <= words + 20
        beats = words * word_bytes(unit, size) // 16
        cycles = await bench.store(unit, 0, words, 0)
        dut._log.info(f"STORE {unit.name}: {beats} beats in {cycles} cycles")
        assert cycles <= 1.03 * beats + 60
