# SPDX-License-Identifier: Apache-2.0
"""block_stream against docs/machine.md: random Programs over striped DRAM and timing, errors, flushes, throughput."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace
from typing import Any

import cocotb
import pytest
from block_stream_bench import MEMORY_LINES, Bench, Execution, experts_apart, random_program
from dram import Timing
from unit import SIZES, Unit, run

from codesign.schedule.design import MachineSize
from codesign.schedule.isa import SLICE_BITS, WIDTH_BITS, Instruction, Opcode, Width
from codesign.schedule.isa import Space as SpaceCode
from codesign.schedule.legal import violation

UNIT = Unit(
    "tb_block_stream",
    ("instr_check", "sdp_ram", "sync_fifo", "beat_fifo", "axi_reader", "line_join", "collector", "block_fifo",
     "fetcher", "block_stream"),
)  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_block_stream(name: str) -> None:
    run(UNIT, name, "test_block_stream")


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
async def descriptors_wait(dut: Any) -> None:
    """Slices have a descriptor for each tile: behind them those of whole experts and of other instructions wait."""
    bench = Bench(dut, 10, Timing((100, 200)), pop_percent=15)
    await bench.reset()
    size, codes = bench.size, (Width.SLICE2, Width.STORED, Width.SLICE4, Width.SLICE2)
    blocks = 2 * size.dense_blocks(3, 3, 8)
    experts = Instruction(
        Opcode.EXPERTS, rows=4, k_words=3, n_tiles=3, k_words2=3, n_tiles2=3, src_stride=3, aux_stride=3, dst_stride=3,
        num_experts=4, ahead=4, blocks=blocks, widths=sum(code << WIDTH_BITS * e for e, code in enumerate(codes)),
        shift=1, mem_addr=bench.rng.randrange(50),
    )  # fmt: skip
    norm = Instruction(Opcode.NORM, rows=1, n_tiles=1, dim=16, shift=3, src_stride=1, dst_stride=1,
                       blocks=size.record_blocks, mem_addr=77)  # fmt: skip
    program = [experts, norm, norm]
    assert all(violation(i, size) is None for i in program)
    execution = Execution(bench, program, 5000)
    await execution.start()
    await execution.finish()


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
