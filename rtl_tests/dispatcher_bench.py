# SPDX-License-Identifier: Apache-2.0
"""Runs Programs on `control` amid a model of the units (control_model.py): what goes in, what came out."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, RisingEdge
from control_bench import machine
from control_model import CONSUMER, Units
from instructions import Maker
from resetting import start_in_reset

from codesign.schedule.isa import UNIT_STATES, Instruction, Opcode, Space, Status
from codesign.schedule.legal import Before, first_violation, misplaced

LAYERS = (
    Opcode.LINEAR, Opcode.NORM, Opcode.LINEAR, Opcode.LINEAR, Opcode.LINEAR, Opcode.ATTENTION, Opcode.LINEAR,
    Opcode.NORM, Opcode.LINEAR, Opcode.LINEAR, Opcode.NORM, Opcode.ROUTE, Opcode.EXPERTS,
)  # fmt: skip
"""The instructions of a transformer's layers; in them every chain that the units follow."""
ERRORS = ("read_error_i", "write_error_i")


@dataclass(frozen=True)
class Outcome:
    """What the registers said at done, and the units' last state."""

    status: Status
    fault: int
    cycles: int
    states: dict[str, int]
    units: Units
    gaps: list[int]


@dataclass(frozen=True)
class Trial:
    """How fast the units are in a run, and what goes wrong in it."""

    pace: int = 70
    words: list[bytes] | None = None
    """The Program's words, where they are not its instructions."""
    count: int | None = None
    """What the register says, where it is not the number of words."""
    watchdog: int = 0
    stuck: int | None = None
    """This instruction never completes."""
    error: tuple[str, int] | None = None
    """A signal of ERRORS, and the number of complete instructions at which it pulses."""
    late_bus: int = 0
    """Cycles that the bus is not quiet before the run."""
    busy_bus: int = 0
    """Cycles that it is not after the run; -1: for ever."""


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
            "array_done_i", "array_rows_i", "norm_rows_i", "unit_states_i",
        ):  # fmt: skip
            getattr(dut, name).value = 0
        dut.quiet_i.value = 1
        await start_in_reset(dut)

    def program(self, length: int) -> list[Instruction]:
        """Random instructions with random chains, parts of it as in a transformer."""
        out: list[Instruction] = []
        before = Before()
        while len(out) < length:
            for opcode in self.rng.choice((LAYERS, self.rng.choices(tuple(Opcode), k=4))):
                i = self.placed(self.small(opcode), before)
                if i is None:
                    continue
                chain = self.rng.choice((0, 1, 1, 1, 15)) if opcode is not Opcode.EXPERTS else self.rng.choice((0, 1))
                out.append(replace(i, chain=chain))
                before = before.then(i)
        assert first_violation(out, self.size) is None
        return out[:length]

    def placed(self, i: Instruction, before: Before) -> Instruction | None:
        """The instruction with what its place asks of it, None when it may not stand there."""
        fence = 0
        if i.opcode is Opcode.LOAD and i.space is Space.OUTPUT:
            fence = before.first_store_end
        elif i.opcode is Opcode.EXPERTS:
            while i.rows < before.rows:  # of fewer rows than fit, legal
                i = self.small(Opcode.EXPERTS)
            fence, experts = before.route_end, before.experts
            i = replace(i, rows=before.rows, num_experts=experts, ahead=min(i.ahead, experts))
        i = replace(i, fence=self.rng.randint(fence, max(fence, before.count)))
        return None if misplaced(i, before) else i

    def small(self, opcode: Opcode) -> Instruction:
        """A legal instruction that does not take the model long."""
        while True:
            i = self.maker.legal(opcode)
            if i.num_heads <= 3:
                return i

    def counts(self) -> list[int]:
        return [self.rng.choice((0, 0, 1, 3)) for _ in range(self.size.max_experts)]

    async def run(self, program: list[Instruction], trial: Trial | None = None) -> Outcome:
        """One run until done."""
        run = Run(self, program, trial or Trial())
        run.begin()
        cycles = await run.until_done()
        outcome = run.outcome(cycles)
        await FallingEdge(self.dut.clk_i)
        assert not self.dut.done_o.value
        return outcome

    async def good(self, length: int, pace: int = 70, late_bus: int = 0) -> Outcome:
        """A random run that must succeed."""
        program = self.program(length)
        outcome = await self.run(program, Trial(pace=pace, late_bus=late_bus))
        assert (outcome.status, outcome.fault) == (Status.OK, 0)
        assert int.from_bytes(bytes(outcome.states.values()), "little") == 0
        assert all(outcome.units.complete)
        reading = [CONSUMER[i.opcode] for i in program if outcome.units.reads(i)]
        assert outcome.units.turns == reading, "the stream's turns are in Program order"
        return outcome


class Run:
    """A Program on `control` from start to done, amid its units."""

    def __init__(self, bench: Bench, program: list[Instruction], trial: Trial) -> None:
        self.dut, self.rng, self.size, self.trial = bench.dut, bench.rng, bench.size, trial
        self.words = [i.encode() for i in program] if trial.words is None else trial.words
        self.units = Units(bench.dut, program, bench.counts(), bench.rng, trial.pace, trial.stuck)
        self.states = bench.rng.getrandbits(24)
        self.feeder: cocotb.task.Task[None] | None = None
        self.flushed: int | None = None
        self.completed = self.done_at = 0
        self.gaps: list[int] = []

    def begin(self) -> None:
        """Sets the registers and starts."""
        dut, trial = self.dut, self.trial
        dut.counts_i.value = sum(c << (16 * e) for e, c in enumerate(self.units.counts))
        dut.num_instructions_i.value = len(self.words) if trial.count is None else trial.count
        dut.watchdog_i.value, dut.start_i.value = trial.watchdog, 1
        dut.unit_states_i.value = self.states

    async def until_done(self) -> int:
        """All cycles until done; their number."""
        dut = self.dut
        for cycle in range(200_000):
            await FallingEdge(dut.clk_i)
            if dut.done_o.value:
                return cycle + 1
            if dut.fetch_start_o.value:
                assert self.feeder is None
                self.feeder = cocotb.start_soon(self._feed())
            dut.block_avail_i.value = int(self.rng.randrange(100) < 80)
            self._bus(cycle)
            self.units.cycle()
            if dut.unit_rst_no.value:
                self._progress(cycle)
        raise AssertionError("the run did not end")

    async def _feed(self) -> None:
        """The block stream writes the Program, and the fetcher reads it behind the dispatcher's back."""
        dut, line_bytes = self.dut, self.size.line_bytes
        data = b"".join(self.words)
        for number, at in enumerate(range(0, len(data), line_bytes)):
            while self.rng.randrange(100) >= 90:
                await FallingEdge(dut.clk_i)
            dut.program_we_i.value = 1
            dut.program_waddr_i.value = number
            dut.program_line_i.value = int.from_bytes(data[at : at + line_bytes], "little")
            await FallingEdge(dut.clk_i)
            dut.program_we_i.value = 0
        while not dut.program_loaded_o.value:
            await FallingEdge(dut.clk_i)
        for index, word in enumerate(self.words):
            await self._read_back(index, word)
            for _ in range(self.rng.randrange(20)):
                await FallingEdge(dut.clk_i)

    async def _read_back(self, index: int, word: bytes) -> None:
        """The fetcher asks for an instruction."""
        dut = self.dut
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

    def _bus(self, cycle: int) -> None:
        """Whether the bus is quiet."""
        if self.dut.flush_o.value:
            self.flushed = cycle
        if self.flushed is None:
            quiet = cycle >= self.trial.late_bus
        else:
            quiet = self.trial.busy_bus >= 0 and cycle - self.flushed > self.trial.busy_bus
        self.dut.quiet_i.value = int(quiet)

    def _progress(self, cycle: int) -> None:
        """Instructions complete one by one and in order; an error comes when it is due."""
        now = int(self.dut.completed_o.value)
        assert now in (self.completed, self.completed + 1)
        self.units.note(now)
        assert all(self.units.complete[:now]), "complete in order only"
        if now != self.completed:
            self.gaps.append(cycle - self.done_at)
            self.completed, self.done_at = now, cycle
        for name in ERRORS:
            getattr(self.dut, name).value = int(self.trial.error == (name, now))

    def outcome(self, cycles: int) -> Outcome:
        """What the registers say, right after the last cycle; all inputs are put back."""
        dut = self.dut
        dut.start_i.value = 0
        if self.feeder is not None:
            self.feeder.cancel()
        for name in ("program_we_i", "fetcher_req_i", *ERRORS):
            getattr(dut, name).value = 0
        found, fields = int(dut.unit_state_o.value), {}
        for name, width in UNIT_STATES:
            fields[name] = found & ((1 << width) - 1)
            found >>= width
        status, counted = Status(int(dut.status_o.value)), int(dut.cycles_o.value)
        assert found_units(fields) == (0 if status is Status.OK else self.states)
        assert abs(counted - cycles) <= 1
        return Outcome(status, int(dut.fault_o.value), counted, fields, self.units, self.gaps)


def found_units(fields: dict[str, int]) -> int:
    """The states of the units beside the control side, as unit_states_i has them."""
    names = [name for name, _ in UNIT_STATES[2:]]
    return sum(fields[name] << (4 * k) for k, name in enumerate(names))


async def bench(dut: Any, seed: int) -> Bench:
    made = Bench(dut, seed)
    await made.start()
    return made
