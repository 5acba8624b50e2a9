# SPDX-License-Identifier: Apache-2.0
"""axi_reader and axi_writer: descriptors of any length at any address, page crossings, credits, flushes, speed."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge
from dram import BEAT_BYTES, ReadPort, Space, Timing, WritePort, step_reads, step_writes
from resetting import start_in_reset
from unit import Unit, run

UNIT = Unit("tb_axi", ("sdp_ram", "sync_fifo", "beat_fifo", "axi_reader", "axi_writer"))
BASE, BEATS = 0x1_FFFF_F000, 3000
"""A space across a 4 GiB boundary; every other bench has one of its own, anywhere in 64 bits."""
MOST_WRITES = 8
"""Bursts that axi_writer has under way at most."""


def test_axi() -> None:
    run(UNIT, "16x16p1", "test_axi")


class Bench:
    """One port of each kind on one space."""

    def __init__(self, dut: Any, seed: int, timing: Timing) -> None:
        self.dut, self.rng, self.cycle, self.errors = dut, random.Random(seed), 0, 0
        self.base = 16 * self.rng.randrange((1 << 60) - BEATS) if seed % 2 else BASE
        self.space = Space(self.base, 0, 1, bytearray(self.rng.randbytes(BEATS * BEAT_BYTES)))
        self.read = ReadPort(0, [self.space], timing, random.Random(seed))
        self.write = WritePort(0, self.space, timing, random.Random(seed))

    async def reset(self) -> None:
        dut = self.dut
        for name in ("flush", "read_desc_valid", "write_desc_valid", "beat_ready", "beat_valid", "arready", "rvalid",
                     "awready", "wready", "bvalid", "rresp", "bresp", "rlast"):  # fmt: skip
            getattr(dut, f"{name}_i").value = 0
        await start_in_reset(dut)

    async def step(self) -> None:
        step_reads(self.dut, [self.read])
        step_writes(self.dut, [self.write])
        await FallingEdge(self.dut.clk_i)
        self.cycle += 1
        self.errors += int(self.dut.read_error_o.value) + int(self.dut.write_error_o.value)

    def descriptor(self, most: int) -> tuple[int, int]:
        """(first beat, beats): short ones, and ones that end at, before or behind a page's end."""
        beats = self.rng.choice([1, 2, 12, 24, 255, 256, 257, self.rng.randint(1, most)])
        return self.rng.randrange(BEATS - beats + 1), beats

    def data(self, first: int, beats: int) -> list[int]:
        at = range(first, first + beats)
        return [int.from_bytes(self.space.data[i * BEAT_BYTES : (i + 1) * BEAT_BYTES], "little") for i in at]

    async def read_all(self, descriptors: list[tuple[int, int]], ready_percent: int, limit: int = 60000) -> int:
        """Hands the descriptors over and takes their beats; returns the cycles."""
        dut, todo = self.dut, deque(descriptors)
        want = deque(beat for first, beats in descriptors for beat in self.data(first, beats))
        start = self.cycle
        while want and self.cycle - start < limit:
            dut.read_desc_valid_i.value = int(bool(todo))
            if todo:
                dut.desc_addr_i.value, dut.desc_beats_i.value = self.base + BEAT_BYTES * todo[0][0], todo[0][1]
                if dut.read_desc_ready_o.value:
                    todo.popleft()
            ready = self.rng.randrange(100) < ready_percent
            dut.beat_ready_i.value = int(ready)
            if ready and dut.beat_valid_o.value:
                assert int(dut.beat_o.value) == want.popleft()
            await self.step()
        assert not want
        assert not todo
        dut.read_desc_valid_i.value = dut.beat_ready_i.value = 0
        return self.cycle - start

    async def write_all(self, first: int, beats: list[int], valid_percent: int, stop_after: int | None = None) -> int:
        """One descriptor and its beats (given up after `stop_after` cycles); returns the cycles."""
        dut, todo = self.dut, deque(beats)
        start, described = self.cycle, False
        while True:
            dut.write_desc_valid_i.value = int(not described)
            dut.desc_addr_i.value, dut.desc_beats_i.value = self.base + BEAT_BYTES * first, len(beats)
            described = described or bool(dut.write_desc_ready_o.value)
            valid = bool(todo) and self.rng.randrange(100) < valid_percent
            dut.beat_valid_i.value = int(valid)
            dut.beat_i.value = todo[0] if valid else self.rng.getrandbits(128)
            if valid and dut.beat_ready_o.value:
                todo.popleft()
            await self.step()
            dut.write_desc_valid_i.value = 0
            if (stop_after is not None and self.cycle - start >= stop_after) or (
                described and not todo and self.cycle - start > 3 and dut.write_idle_o.value
            ):
                dut.beat_valid_i.value = 0
                return self.cycle - start
            assert self.cycle - start < 60000

    async def write_many(self, writes: list[tuple[int, list[int]]]) -> int:
        """Descriptors (first beat, beats), each as soon as it is taken, and their beats; most bursts under way."""
        dut, todo, most = self.dut, deque(writes), 0
        beats = deque(beat for _, more in writes for beat in more)
        while todo or beats or not dut.write_idle_o.value:
            dut.write_desc_valid_i.value, dut.beat_valid_i.value = int(bool(todo)), int(bool(beats))
            if todo:
                dut.desc_addr_i.value, dut.desc_beats_i.value = self.base + BEAT_BYTES * todo[0][0], len(todo[0][1])
                if dut.write_desc_ready_o.value:
                    todo.popleft()
            if beats:
                dut.beat_i.value = beats[0]
                if dut.beat_ready_o.value:
                    beats.popleft()
            await self.step()
            most = max(most, len(self.write.addresses) + len(self.write.answers))
        dut.write_desc_valid_i.value = dut.beat_valid_i.value = 0
        return most

    async def flush(self) -> None:
        self.dut.flush_i.value = 1
        await self.step()
        for _ in range(2000):
            if self.dut.read_idle_o.value and self.dut.write_idle_o.value:
                break
            await self.step()
        assert self.dut.read_idle_o.value
        assert self.dut.write_idle_o.value
        assert not self.read.queue
        assert self.write.quiet
        self.dut.flush_i.value = 0
        await self.step()


TIMINGS = (Timing(), Timing(ideal=True), Timing((100, 200), 80, 80), Timing((1, 3), 5, 0))


@cocotb.test()
async def reads(dut: Any) -> None:
    """Every beat once and in order, however slowly they are taken: RREADY never falls, the FIFO never overflows."""
    for seed, timing in enumerate(TIMINGS):
        bench = Bench(dut, seed, timing)
        if seed == 0:
            await bench.reset()
        for ready in (100, 50, 8):
            await bench.read_all([bench.descriptor(700) for _ in range(12)], ready)
            assert dut.read_idle_o.value
            assert not dut.beat_valid_o.value
        assert bench.read.most <= 16
        bench.read.fail_beat = bench.read.beats + 100
        await bench.read_all([(5, 40), (9, 200)], 100)
        assert bench.errors == 1


@cocotb.test()
async def short_reads_fill_the_bus(dut: Any) -> None:
    """Bursts of 12 beats, 60 cycles away: a beat a cycle."""
    bench = Bench(dut, 20, Timing((60, 60), ideal=True))
    await bench.reset()
    cycles = await bench.read_all([(256 * (i % 10) + 48 * (i // 10 % 4), 12) for i in range(200)], 100)
    dut._log.info(f"200 bursts of 12 beats in {cycles} cycles")
    assert bench.read.bursts == 200
    assert cycles < 200 * 12 + 90


@cocotb.test()
async def writes(dut: Any) -> None:
    """Each beat to its place and nothing else; error responses are reported."""
    for seed, timing in enumerate(TIMINGS):
        bench = Bench(dut, 30 + seed, timing)
        if seed == 0:
            await bench.reset()
        for valid in (100, 100, 50, 20):
            first, count = bench.descriptor(700)
            beats = [bench.rng.getrandbits(128) for _ in range(count)]
            want = bytearray(bench.space.data)
            want[first * BEAT_BYTES : (first + count) * BEAT_BYTES] = b"".join(b.to_bytes(16, "little") for b in beats)
            await bench.write_all(first, beats, valid)
            assert bench.space.data == want
        assert bench.errors == 0
        bench.write.fail_burst = bench.write.bursts
        await bench.write_all(1, [7], 100)
        assert bench.errors == 1


@cocotb.test()
async def short_writes(dut: Any) -> None:
    """Bursts of a few beats: AW waits for the slave, then for answers; never more under way than may be."""
    for seed, timing in ((35, Timing((1, 10), 90, 0)), (36, Timing((300, 400), 20, 0)), (37, Timing((60, 90), 50, 50))):
        bench = Bench(dut, seed, timing)
        if seed == 35:
            await bench.reset()
        want, writes = bytearray(bench.space.data), []
        for i in range(60):
            beats = [bench.rng.getrandbits(128) for _ in range(bench.rng.randint(1, 3))]
            first = 40 * i + bench.rng.randrange(30)
            writes.append((first, beats))
            data = b"".join(b.to_bytes(16, "little") for b in beats)
            want[first * BEAT_BYTES : first * BEAT_BYTES + len(data)] = data
        most = await bench.write_many(writes)
        assert bench.space.data == want
        assert most == MOST_WRITES if seed == 36 else most <= MOST_WRITES


@cocotb.test()
async def flushes(dut: Any) -> None:
    """Given up anywhere: what has begun ends by the rules, the next transfer is whole."""
    bench = Bench(dut, 40, Timing((1, 90)))
    await bench.reset()
    for _ in range(25):
        before = bytes(bench.space.data)
        beats = [bench.rng.getrandbits(128) for _ in range(700)]
        first = bench.rng.randrange(BEATS - 700)
        dut.read_desc_valid_i.value = 1  # both at once: the reader takes the writer's descriptor again and again
        await bench.write_all(first, beats, 70, stop_after=bench.rng.randrange(5, 500))
        dut.read_desc_valid_i.value = 0
        await bench.flush()
        assert not dut.beat_valid_o.value
        for i in range(BEATS):
            got = bench.space.data[i * BEAT_BYTES : (i + 1) * BEAT_BYTES]
            assert got == before[i * BEAT_BYTES : (i + 1) * BEAT_BYTES] or (
                first <= i < first + 700 and got == beats[i - first].to_bytes(16, "little")
            )
        await bench.read_all([bench.descriptor(300)], 80)
        await bench.write_all(3, [bench.rng.getrandbits(128) for _ in range(5)], 80)
