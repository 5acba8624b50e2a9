# SPDX-License-Identifier: Apache-2.0
"""The control side (`control`: dispatcher, issuer, turns, chains, run control) amid a model of the units.

Random Programs run at random paces; every error ends the run as docs/machine.md says, and the next run is as good as
the first.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cocotb
import pytest
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge
from control_bench import machine, run
from control_model import CONSUMER, Units
from instructions import Maker

from codesign.schedule.isa import UNIT_STATES, Instruction, Opcode, Status

SOURCES = (
    "sdp_ram", "instr_check", "watchdog", "run_control", "program_store", "dispatcher", "pass_issuer", "stream_turn",
    "chain_tracker",
)  # fmt: skip
LAYERS = (
    Opcode.LINEAR, Opcode.NORM, Opcode.LINEAR, Opcode.LINEAR, Opcode.LINEAR, Opcode.ATTENTION, Opcode.LINEAR,
    Opcode.NORM, Opcode.LINEAR, Opcode.LINEAR, Opcode.NORM, Opcode.ROUTE, Opcode.EXPERTS,
)  # fmt: skip
"""The instructions of a transformer's layers; in them every chain that the units follow."""


@pytest.mark.parametrize("size", ["simd16", "simd32", "simd64"])
def test_dispatcher(size: str, tmp_path: Path) -> None:
    run(tmp_path, "control", SOURCES, size, "test_dispatcher")


@dataclass(frozen=True)
class Outcome:
    """What the registers said at done, and the units' last state."""

    status: Status
    fault: int
    cycles: int
    states: dict[str, int]
    units: Units
    gaps: list[int]


class Bench:
    """Runs Programs on `control`, one after the other without a reset."""

    def __init__(self, dut: Any, seed: int) -> None:
        self.dut, self.rng, self.size = dut, random.Random(seed), machine()
        self.maker = Maker(self.size, self.rng)

    async def start(self) -> None:
        dut = self.dut
        for name in (
            "start_i", "num_instructions_i", "watchdog_i", "program_we_i", "program_waddr_i", "program_line_i",
            "fetcher_req_i", "fetcher_index_i", "block_avail_i", "block_done_i", "read_error_i", "write_error_i",
            "load_done_i", "store_done_i", "norm_done_i", "norm_wait_i", "route_done_i", "counts_i", "pass_ready_i",
            "array_done_i", "array_rows_i", "norm_rows_i", "unit_states_i", "rst_ni",
        ):  # fmt: skip
            getattr(dut, name).value = 0
        dut.quiet_i.value = 1
        Clock(dut.clk_i, 2, unit="ns").start()
        await ClockCycles(dut.clk_i, 4)
        await FallingEdge(dut.clk_i)
        dut.rst_ni.value = 1
        await FallingEdge(dut.clk_i)

    def program(self, length: int) -> list[Instruction]:
        """Random instructions with random chains, parts of it as in a transformer."""
        out: list[Instruction] = []
        while len(out) < length:
            for opcode in self.rng.choice((LAYERS, self.rng.choices(tuple(Opcode), k=4))):
                i = self.small(opcode)
                chain = self.rng.choice((0, 1, 1, 1, 15)) if opcode is not Opcode.EXPERTS else self.rng.choice((0, 1))
                out.append(replace(i, chain=chain))
        return out[:length]

    def small(self, opcode: Opcode) -> Instruction:
        """A legal instruction that does not take the model long."""
        while True:
            i = self.maker.legal(opcode)
            if i.num_heads <= 3:
                return i

    def counts(self) -> list[int]:
        return [self.rng.choice((0, 0, 1, 3)) for _ in range(self.size.max_experts)]

    async def _program_lines(self, words: list[bytes], pace: int) -> None:
        """The block stream writes the Program, and the fetcher reads it behind the dispatcher's back."""
        dut, ports = self.dut, self.size.ports
        data = b"".join(words)
        lines = [data[i : i + 16 * ports] for i in range(0, len(data), 16 * ports)]
        for number, line in enumerate(lines):
            while self.rng.randrange(100) >= pace:
                await FallingEdge(dut.clk_i)
            dut.program_we_i.value = 1
            dut.program_waddr_i.value = number
            dut.program_line_i.value = int.from_bytes(line, "little")
            await FallingEdge(dut.clk_i)
            dut.program_we_i.value = 0
        while not dut.program_loaded_o.value:
            await FallingEdge(dut.clk_i)
        for index, word in enumerate(words):
            dut.fetcher_req_i.value, dut.fetcher_index_i.value = 1, index
            while True:
                await RisingEdge(dut.clk_i)
                granted = bool(dut.fetcher_gnt_o.value)
                await FallingEdge(dut.clk_i)
                if granted:
                    break
            dut.fetcher_req_i.value = 0
            while not dut.fetcher_valid_o.value:
                await FallingEdge(dut.clk_i)
            assert int(dut.fetcher_instr_o.value) == int.from_bytes(word, "little")
            for _ in range(self.rng.randrange(20)):
                await FallingEdge(dut.clk_i)

    async def run(
        self,
        program: list[Instruction],
        *,
        pace: int = 70,
        words: list[bytes] | None = None,
        watchdog: int = 0,
        stuck: int | None = None,
        error: tuple[str, int] | None = None,
        busy_bus: int = 0,
        late_bus: int = 0,
        count: int | None = None,
    ) -> Outcome:
        """One run until done. `error`: a signal and the number of complete instructions at which it pulses.

        `words` replaces the Program's bytes. `busy_bus`: cycles that the bus is not quiet after the run, -1 for ever;
        `late_bus`: before it.
        """
        dut = self.dut
        words = words if words is not None else [i.encode() for i in program]
        units = Units(dut, program, self.counts(), self.rng, pace, stuck)
        dut.counts_i.value = sum(c << (16 * e) for e, c in enumerate(units.counts))
        dut.num_instructions_i.value = len(words) if count is None else count
        dut.watchdog_i.value, dut.start_i.value = watchdog, 1
        states = self.rng.getrandbits(24)
        dut.unit_states_i.value = states
        feeder, completed, done_at, gaps, flushed = None, 0, 0, [], None
        for cycle in range(200_000):
            await FallingEdge(dut.clk_i)
            if dut.done_o.value:
                break
            if dut.fetch_start_o.value:
                assert feeder is None
                feeder = cocotb.start_soon(self._program_lines(words, 90))
            dut.block_avail_i.value = int(self.rng.randrange(100) < 80)
            if dut.flush_o.value:
                flushed = cycle
            if flushed is None:
                dut.quiet_i.value = int(cycle >= late_bus)
            else:
                dut.quiet_i.value = int(busy_bus >= 0 and cycle - flushed > busy_bus)
            units.cycle()
            if dut.unit_rst_no.value:
                now = int(dut.completed_o.value)
                assert now in (completed, completed + 1)
                units.note(now)
                assert all(units.complete[:now]), "complete in order only"
                if now != completed:
                    gaps.append(cycle - done_at)
                    completed, done_at = now, cycle
                for name in ("read_error_i", "write_error_i"):
                    hit = error is not None and error[0] == name and now == error[1]
                    getattr(dut, name).value = int(hit)
        else:
            raise AssertionError("the run did not end")
        dut.start_i.value = 0
        if feeder is not None:
            feeder.cancel()
        for name in ("program_we_i", "fetcher_req_i", "read_error_i", "write_error_i"):
            getattr(dut, name).value = 0
        found, fields = int(dut.unit_state_o.value), {}
        for name, width in UNIT_STATES:
            fields[name] = found & ((1 << width) - 1)
            found >>= width
        status = Status(int(dut.status_o.value))
        assert found_units(fields) == (0 if status is Status.OK else states)
        outcome = Outcome(status, int(dut.fault_o.value), int(dut.cycles_o.value), fields, units, gaps)
        assert abs(outcome.cycles - (cycle + 1)) <= 1
        await FallingEdge(dut.clk_i)
        assert not dut.done_o.value
        return outcome

    async def good(self, length: int, pace: int = 70, late_bus: int = 0) -> Outcome:
        """A random run that must succeed."""
        program = self.program(length)
        outcome = await self.run(program, pace=pace, late_bus=late_bus)
        assert (outcome.status, outcome.fault) == (Status.OK, 0)
        assert int.from_bytes(bytes(outcome.states.values()), "little") == 0
        assert all(outcome.units.complete)
        reading = [CONSUMER[i.opcode] for i in program if outcome.units.reads(i)]
        assert outcome.units.turns == reading, "the stream's turns are in Program order"
        return outcome


def found_units(fields: dict[str, int]) -> int:
    """The states of the units beside the control side, as unit_states_i has them."""
    names = [name for name, _ in UNIT_STATES[2:]]
    return sum(fields[name] << (4 * k) for k, name in enumerate(names))


async def bench(dut: Any, seed: int) -> Bench:
    made = Bench(dut, seed)
    await made.start()
    return made


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
        outcome = await b.run([], count=count)
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
        words[at] = b.rng.choice((bytes(64), bytes([9]) + words[at][1:], words[at][:63] + b"\x80"))
        outcome = await b.run(program, words=words)
        assert (outcome.status, outcome.fault) == (Status.ILLEGAL_INSTRUCTION, at)
        assert all(i < at for i in outcome.units.dispatched)
        assert all(outcome.units.complete[i] for i in range(at) if i in outcome.units.dispatched)
        await b.good(5)


@cocotb.test()
async def bus_errors(dut: Any) -> None:
    """A read or write error ends the run at the oldest incomplete instruction, once the bus is quiet."""
    b = await bench(dut, 5)
    for name, status in (("read_error_i", Status.READ_ERROR), ("write_error_i", Status.WRITE_ERROR)):
        for at in (0, 1, 5):
            outcome = await b.run(b.program(10), error=(name, at), busy_bus=b.rng.choice((0, 7, 300)))
            assert (outcome.status, outcome.fault) == (status, at)
            await b.good(6)


@cocotb.test()
async def hangs(dut: Any) -> None:
    """The watchdog ends a run without progress, also with transfers that never end; the next run waits for these."""
    b = await bench(dut, 6)
    for busy_bus in (0, 50, -1):
        program = b.program(9)
        at = b.rng.choice([k for k, i in enumerate(program) if i.opcode is not Opcode.EXPERTS])
        outcome = await b.run(program, watchdog=20_000, stuck=at, busy_bus=busy_bus)
        assert (outcome.status, outcome.fault) == (Status.HANG, at)
        assert outcome.cycles > 20_000
        if busy_bus < 0:
            again = await b.run(program, watchdog=300, late_bus=1 << 30)
            assert (again.status, again.fault, again.units.dispatched) == (Status.HANG, 0, [])
        await b.good(6, late_bus=max(-busy_bus * 400, 0))
    outcome = await b.run(program, watchdog=20_000)
    assert outcome.status is Status.OK


@cocotb.test()
async def dispatch_is_quick(dut: Any) -> None:
    """Between one instruction's completion and the start of the next lie few cycles when it was waiting already."""
    b = await bench(dut, 7)
    dut.block_avail_i.value = 1
    store = [b.maker.legal(Opcode.STORE) for _ in range(b.size.max_instructions)]
    outcome = await b.run(store, pace=100)
    assert outcome.status is Status.OK
    dut._log.info(f"STORE to STORE: {sorted(set(outcome.gaps))} cycles")
    assert max(outcome.gaps[1:]) <= 26, "fetch, check, start and the model's two cycles"
