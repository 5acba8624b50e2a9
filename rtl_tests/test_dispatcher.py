# SPDX-License-Identifier: Apache-2.0
"""The control side (`control`: dispatcher, issuer, turns, chains, run control) amid a model of the units.

Random Programs run at random paces; every error ends the run as docs/machine.md says, and the next run is as good as
the first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cocotb
import pytest
from control_bench import SIZES
from dispatcher_bench import ERRORS, Trial, bench
from unit import Unit, run

from codesign.schedule.isa import Opcode, Space, Status
from codesign.schedule.legal import Before, first_violation

UNIT = Unit(
    "control",
    ("sdp_ram", "instr_check", "watchdog", "run_control", "program_store", "dispatcher", "pass_issuer", "stream_turn",
     "chain_tracker"),
)  # fmt: skip


@pytest.mark.parametrize("size", ["simd16", "simd32", "simd64"])
def test_dispatcher(size: str) -> None:
    run(UNIT, size, "test_dispatcher", SIZES[size])


@cocotb.test()
async def random_programs(dut: Any) -> None:
    """All complete, in order, chained ones early, and nobody reads a row too soon."""
    b = await bench(dut, 1)
    overlapped = 0
    for pace in (100, 90, 60, 25):
        for _ in range(4):
            most = b.size.max_instructions
            outcome = await b.good(b.rng.choice((b.rng.randint(1, most), most)), pace)
            overlapped += outcome.units.overlapped
    assert overlapped > 30


@cocotb.test()
async def nothing_to_run(dut: Any) -> None:
    """Zero instructions refresh the registers only."""
    b = await bench(dut, 2)
    outcome = await b.run([])
    assert (outcome.status, outcome.units.dispatched) == (Status.OK, [])
    assert outcome.cycles < 8
    await b.good(3)


@cocotb.test()
async def too_many(dut: Any) -> None:
    """More instructions than the machine stores are not even read."""
    b = await bench(dut, 3)
    for count in (b.size.max_instructions + 1, 0x10001, 0xFFFFFFFF):
        outcome = await b.run([], Trial(count=count))
        assert (outcome.status, outcome.fault) == (Status.ILLEGAL_INSTRUCTION, 0)
        assert outcome.units.dispatched == []
    await b.good(4)
    await b.good(b.size.max_instructions)


@cocotb.test()
async def illegal_instructions(dut: Any) -> None:
    """All before it complete, it is the fault, nothing behind it begins."""
    b = await bench(dut, 4)
    for _ in range(6):
        program = b.program(b.rng.randint(1, 12))
        at = b.rng.randrange(len(program))
        words = [i.encode() for i in program]
        late = replace(program[at], fence=b.rng.choice((at + 1, 0xFFFF))).encode()
        words[at] = b.rng.choice((bytes(64), bytes([9]) + words[at][1:], words[at][:63] + b"\x80", late))
        outcome = await b.run(program, Trial(words=words))
        assert (outcome.status, outcome.fault) == (Status.ILLEGAL_INSTRUCTION, at)
        assert all(i < at for i in outcome.units.dispatched)
        assert all(outcome.units.complete[i] for i in range(at) if i in outcome.units.dispatched)
        await b.good(5)


@cocotb.test()
async def illegal_places(dut: Any) -> None:
    """EXPERTS is judged by the last ROUTE of its own run, a LOAD from OUTPUT by the run's first STORE."""
    b = await bench(dut, 8)
    for _ in range(3):
        route, linear = b.small(Opcode.ROUTE), replace(b.small(Opcode.LINEAR), chain=1)
        store, experts = (
            b.small(Opcode.STORE),
            b.placed(b.small(Opcode.EXPERTS), Before(1, 0, 1, route.rows, route.num_experts)),
        )
        assert experts is not None
        load = b.maker.legal(Opcode.LOAD)
        while load.space is not Space.OUTPUT:
            load = b.maker.legal(Opcode.LOAD)
        for program, fault in (
            ([route, linear, replace(experts, fence=1)], None),
            ([route, linear, replace(experts, fence=2), replace(experts, fence=3)], None),
            ([experts], 0),
            ([linear, replace(experts, fence=1), route], 1),
            ([route, linear, replace(experts, fence=0)], 2),
            ([route, replace(experts, fence=1, rows=experts.rows % b.size.max_rows + 1)], 1),
            ([linear, store, linear, replace(load, fence=2), store, replace(load, fence=2)], None),
            ([linear, store, linear, replace(load, fence=1)], 3),
            ([load, store], 0),
        ):
            found = first_violation(program, b.size)
            assert (None if found is None else found[0]) == fault, found
            outcome = await b.run(program)
            expected = (Status.OK, 0) if fault is None else (Status.ILLEGAL_INSTRUCTION, fault)
            assert (outcome.status, outcome.fault) == expected
            assert len(outcome.units.dispatched) <= (len(program) if fault is None else fault)


@cocotb.test()
async def bus_errors(dut: Any) -> None:
    """A read or write error ends the run at the oldest incomplete instruction, once the bus is quiet."""
    b = await bench(dut, 5)
    for name, status in zip(ERRORS, (Status.READ_ERROR, Status.WRITE_ERROR), strict=True):
        for at in (0, 1, 5):
            program = b.program(10)
            outcome = await b.run(program, Trial(error=(name, at), busy_bus=b.rng.choice((0, 7, 300))))
            assert (outcome.status, outcome.fault) == (status, at)
            await b.good(6)


@cocotb.test()
async def hangs(dut: Any) -> None:
    """The watchdog ends a run without progress, also with transfers that never end; the next run waits for these."""
    b = await bench(dut, 6)
    for busy_bus in (0, 50, -1):
        program = b.program(9)
        at = b.rng.choice([k for k, i in enumerate(program) if i.opcode is not Opcode.EXPERTS])
        outcome = await b.run(program, Trial(watchdog=20_000, stuck=at, busy_bus=busy_bus))
        assert (outcome.status, outcome.fault) == (Status.HANG, at)
        assert outcome.cycles > 20_000
        if busy_bus < 0:
            again = await b.run(program, Trial(watchdog=300, late_bus=1 << 30))
            assert (again.status, again.fault, again.units.dispatched) == (Status.HANG, 0, [])
        await b.good(6, late_bus=max(-busy_bus * 400, 0))
    outcome = await b.run(program, Trial(watchdog=20_000))
    assert outcome.status is Status.OK


@cocotb.test()
async def dispatch_is_quick(dut: Any) -> None:
    """Between one instruction's completion and the start of the next lie few cycles when it was waiting already."""
    b = await bench(dut, 7)
    dut.block_avail_i.value = 1
    store = [b.maker.legal(Opcode.STORE) for _ in range(b.size.max_instructions)]
    outcome = await b.run(store, Trial(pace=100))
    assert outcome.status is Status.OK
    dut._log.info(f"STORE to STORE: {sorted(set(outcome.gaps))} cycles")
    assert max(outcome.gaps[1:]) <= 26, "fetch, check, start and the model's two cycles"
