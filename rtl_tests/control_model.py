# SPDX-License-Identifier: Apache-2.0
"""The units around `control` as its test bench plays them: each takes random time and keeps to its interface.

One call of `Units.cycle` is one clock cycle: it reads what the control side drives and sets what the next edge sees.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from control_bench import decode_pass

from codesign.emit.params import PassKind, PassPost, RowSource
from codesign.schedule.isa import Instruction, Opcode

ARRAY, NORM, LOAD = range(3)
CONSUMER = {Opcode.LINEAR: ARRAY, Opcode.ROUTE: ARRAY, Opcode.EXPERTS: ARRAY, Opcode.NORM: NORM, Opcode.LOAD: LOAD}
QUEUED_PASSES = 3


@dataclass
class InArray:
    """A pass that the array has taken."""

    fields: dict[str, int]
    index: int
    landed: int = 0
    popped: bool = False
    begun: bool = False
    seen: int = 0
    """Rows of the norm unit that it has read."""
    delay: int = 0


@dataclass
class Units:
    """The array, norm unit, router, load and store unit, and the DRAM side."""

    dut: Any
    program: list[Instruction]
    counts: list[int]
    rng: random.Random
    pace: int
    """Percent of the cycles in which a unit makes a step."""
    stuck: int | None = None
    """Index of an instruction that never completes."""

    passes: list[InArray] = field(default_factory=list)
    array_rows: int = 0
    final_rows: list[int] = field(default_factory=list)
    """For each instruction how many of its rows are final."""
    complete: list[bool] = field(default_factory=list)
    dispatched: list[int] = field(default_factory=list)
    """Indices of instructions in the order in which their units saw them."""
    overlapped: int = 0
    norm_index: int | None = None
    norm_chained: bool = False
    norm_popped: bool = True
    norm_rows: int = 0
    norm_fresh: bool = False
    routing: int | None = None
    logits_in: bool = False
    memory_index: int | None = None
    memory_popped: bool = True
    turns: list[int] = field(default_factory=list)
    """Consumers that popped the last block of an instruction, in order."""
    dones: dict[str, int] = field(default_factory=dict)
    _taken: int | None = None
    _current: int | None = None
    _array_seen: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.final_rows = [0] * len(self.program)
        self.complete = [False] * len(self.program)

    def _step(self) -> bool:
        return self.rng.randrange(100) < self.pace

    def _finish(self, index: int) -> None:
        self.complete[index] = True
        self.final_rows[index] = 1 << 20

    def _begin(self, index: int) -> Instruction:
        """The unit of an instruction sees it for the first time."""
        instruction = self.program[index]
        assert index == len(self.dispatched), f"instruction {index} began after {self.dispatched}"
        self.dispatched.append(index)
        if not all(self.complete[:index]):
            assert instruction.chain, f"instruction {index} is not chained but began early"
            assert self.complete.count(True) >= index - 8
            self.overlapped += 1
        return instruction

    def cycle(self) -> None:
        """One clock cycle; at a falling edge."""
        dut = self.dut
        for name in ("array_done_i", "norm_done_i", "route_done_i", "load_done_i", "store_done_i", "block_done_i"):
            self.dones[name] = 0
        if not dut.unit_rst_no.value:
            self._reset()
        else:
            self._array()
            self._norm()
            self._router()
            self._memory()
        for name, value in self.dones.items():
            getattr(dut, name).value = value
        dut.array_rows_i.value = self.array_rows
        dut.norm_rows_i.value = self.norm_rows
        dut.norm_wait_i.value = int(any(self._waits_for_norm(p) for p in self.passes))
        ready = len(self.passes) < QUEUED_PASSES and self._step()
        dut.pass_ready_i.value = int(ready)
        if ready and dut.pass_valid_o.value:  # the next rising edge takes it
            self._taken = int(dut.pass_o.value)

    def _reset(self) -> None:
        self.passes.clear()
        self._taken = None
        self.array_rows = self.norm_rows = 0
        self.norm_index = self.routing = self.memory_index = None

    def _turn(self, consumer: int) -> bool:
        return bool(int(self.dut.block_avail_o.value) >> consumer & 1)

    def _pop(self, consumer: int) -> bool:
        """Pops the last block of an instruction, if it is this consumer's turn."""
        if not self._turn(consumer) or not self._step():
            return False
        self.dones["block_done_i"] |= 1 << consumer
        self.turns.append(consumer)
        return True

    # ---- the array ----

    def _waits_for_norm(self, p: InArray) -> bool:
        return p.fields["source"] == RowSource.NORM and p.seen < p.fields["rows"]

    def _accept(self) -> None:
        """The pass that the rising edge before took: ready was set when it stood there."""
        word = self._taken
        self._taken = None
        if word is None:
            return
        assert len(self.passes) < QUEUED_PASSES
        fields = decode_pass(word)
        if self._current is None:
            self._current = next(
                i for i in range(len(self.program)) if i not in self._array_seen and self.program[i].opcode in _ARRAY
                and (self.program[i].opcode is not Opcode.EXPERTS or self.reads(self.program[i]))
            )  # fmt: skip
            self._array_seen.add(self._current)
            self.note(self._current)
            self._begin(self._current)
            self._check_source(self._current, fields)
        self.passes.append(InArray(fields, self._current, delay=self.rng.randrange(12)))
        if fields["last"]:
            self._current = None

    def reads(self, i: Instruction) -> bool:
        """Whether the instruction reads the stream."""
        if i.opcode is Opcode.EXPERTS:
            return any(self.counts[e] or e < i.ahead for e in range(i.num_experts))
        return i.opcode in CONSUMER

    def _check_source(self, index: int, fields: dict[str, int]) -> None:
        """The rows of a pass wait for the instruction before exactly when it is chained and that may still run."""
        source = RowSource(fields["source"])
        if source is RowSource.READY:
            assert all(self.complete[:index])
        else:
            before = self.program[index - 1].opcode
            assert self.program[index].chain
            assert source is (RowSource.NORM if before is Opcode.NORM else RowSource.PASS)

    def _may_land(self, p: InArray) -> bool:
        row, source = p.landed, p.fields["source"]
        if source == RowSource.NORM:
            return p.seen > row
        if source == RowSource.PASS and self.program[p.index].opcode is Opcode.LINEAR:
            return self.final_rows[p.index - 1] > row
        return True

    def _array(self) -> None:
        self._accept()
        self._read()
        self._see()
        if not self.passes or not self._step():
            return
        p = self.passes[0]
        if p.delay:
            p.delay -= 1
        elif p.popped and p.index != self.stuck and self._may_land(p):
            self._land(p)

    def _see(self) -> None:
        """The first pass that waits for the norm unit reads the next row when it may, in its turn among the passes."""
        p = next((p for p in self.passes if self._waits_for_norm(p)), None)
        if p is None or not self._step():
            return
        may, before = int(self.dut.array_may_read_o.value), self.final_rows[p.index - 1]
        assert may <= before or before >= 1 << 20, f"instruction {p.index} may read {may} rows, {before} are final"
        p.seen += may > p.seen

    def _read(self) -> None:
        """Pops blocks for the first pass that still needs some."""
        for p in self.passes:
            if p.popped:
                continue
            if p.fields["kind"] in (PassKind.SCORE, PassKind.MIX):
                p.popped = True
                continue
            p.popped = self._pop(ARRAY) if p.fields["last"] else self._turn(ARRAY)
            return

    def _land(self, p: InArray) -> None:
        """One row more of a pass is final."""
        if not p.begun:  # the first row of any tile: an old count ends here
            p.begun, self.array_rows, p.delay = True, 0, self.rng.choice((0, 0, 1, 4, 40))
            if p.delay:
                return
        p.landed += 1
        last = bool(p.fields["last"])
        if last:
            self.array_rows = p.landed
            if p.fields["post"] not in (PassPost.LOGITS, PassPost.GATED):
                self.final_rows[p.index] = p.landed
        if p.landed < p.fields["rows"] and p.fields["kind"] != PassKind.DROP:
            return
        self.passes.pop(0)
        if last:
            self.dones["array_done_i"] = 1
            if self.program[p.index].opcode is Opcode.ROUTE:
                self.logits_in = True
            else:
                self._finish(p.index)

    # ---- the others ----

    def note(self, completed: int) -> None:
        """So many are complete: EXPERTS without a pass leave no other trace."""
        for index in range(len(self.dispatched), completed):
            assert self.program[index].opcode is Opcode.EXPERTS
            assert not self.reads(self.program[index])
            self._begin(index)
            self._finish(index)

    def _instr_index(self, opcodes: tuple[Opcode, ...]) -> int:
        """The instruction that a start pulse is for; its word must stand on instr_o."""
        index = len(self.dispatched)
        while not self.reads(self.program[index]) and self.program[index].opcode is Opcode.EXPERTS:
            index += 1
        self.note(index)
        assert self.program[index].opcode in opcodes
        assert int(self.dut.instr_o.value) == int.from_bytes(self.program[index].encode(), "little")
        return index

    def _norm(self) -> None:
        if self.dut.norm_start_o.value:
            assert self.norm_index is None
            assert not self.dut.norm_wait_i.value, "a pass still reads the rows of the NORM before"
            self.norm_index = self._instr_index((Opcode.NORM,))
            self.norm_chained = bool(self.dut.norm_chained_o.value)
            if not self.norm_chained:
                assert all(self.complete[: self.norm_index])
            self._begin(self.norm_index)
            self.norm_fresh, self.norm_popped = True, False
            return
        if self.norm_index is None:
            return
        if self.norm_fresh:
            self.norm_rows, self.norm_fresh = 0, False
        before = self.final_rows[self.norm_index - 1] if self.norm_index else 0
        may = int(self.dut.norm_may_read_o.value)
        if self.norm_chained:
            assert may <= before or before >= 1 << 20, f"NORM {self.norm_index} may read {may} rows, {before} are final"
        if not self.norm_popped:
            self.norm_popped = self._pop(NORM)
        elif self._step() and (not self.norm_chained or may > self.norm_rows):
            self.norm_rows += 1
            self.final_rows[self.norm_index] = self.norm_rows
            if self.norm_rows == self.program[self.norm_index].rows and self.norm_index != self.stuck:
                self.dones["norm_done_i"] = 1
                self._finish(self.norm_index)
                self.norm_index = None

    def _router(self) -> None:
        if self.dut.route_start_o.value:
            assert self.routing is None
            index = len(self.dispatched)
            while self.program[index].opcode is not Opcode.ROUTE:
                index += 1
            self.routing, self.logits_in = index, False
        elif self.routing is not None and self.logits_in and self._step():
            word = int.from_bytes(self.program[self.routing].encode(), "little")
            assert int(self.dut.instr_o.value) == word, "the router's instruction is held"
            self.dones["route_done_i"] = 1
            self._finish(self.routing)
            self.routing = None

    def _memory(self) -> None:
        load, store = bool(self.dut.load_start_o.value), bool(self.dut.store_start_o.value)
        if load or store:
            assert self.memory_index is None
            self.memory_index = self._instr_index((Opcode.LOAD if load else Opcode.STORE,))
            self._begin(self.memory_index)
            self.memory_popped = store
        elif self.memory_index is not None:
            opcode = self.program[self.memory_index].opcode
            if not self.memory_popped:
                self.memory_popped = self._pop(LOAD)
            elif self._step() and self.memory_index != self.stuck:
                self.dones["load_done_i" if opcode is Opcode.LOAD else "store_done_i"] = 1
                self._finish(self.memory_index)
                self.memory_index = None


_ARRAY = (Opcode.LINEAR, Opcode.ATTENTION, Opcode.ROUTE, Opcode.EXPERTS)
