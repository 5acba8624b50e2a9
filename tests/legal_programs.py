# SPDX-License-Identifier: Apache-2.0
"""Small Programs that every engine must judge alike: legal ones at the bounds of the rules, and what lies beyond."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from codesign.schedule.design import MachineSize
from codesign.schedule.isa import Instruction, Opcode, Post, Space, Unit
from tests.hls.programs import Dense, Job, ceil_div

ROWS, COUNT = 5, 4
"""Tokens, and experts of the ROUTE; the machine has more of both."""
LOAD, CLEAR, ROUTE, LINEAR, EXPERTS, STORE, AGAIN = range(7)
"""The instructions of `Maker.base`."""

Program = tuple[Instruction, ...]
BROKEN: tuple[tuple[str, int, dict[str, Any], str], ...] = (
    ("load_waits_for_itself", LOAD, {"fence": 1}, "fence at most its own index"),
    ("route_waits_for_itself", ROUTE, {"fence": ROUTE + 1}, "fence at most its own index"),
    ("linear_waits_for_ever", LINEAR, {"fence": 0xFFFF}, "fence at most its own index"),
    ("experts_wait_for_themselves", EXPERTS, {"fence": EXPERTS + 1}, "fence at most its own index"),
    ("store_waits_for_itself", STORE, {"fence": STORE + 1}, "fence at most its own index"),
    ("experts_before_the_queues", EXPERTS, {"fence": ROUTE}, "the ROUTE within its fence"),
    ("experts_at_once", EXPERTS, {"fence": 0, "ahead": COUNT}, "the ROUTE within its fence"),
    ("more_rows", EXPERTS, {"rows": ROWS + 1}, "rows of the ROUTE"),
    ("fewer_rows", EXPERTS, {"rows": ROWS - 1}, "rows of the ROUTE"),
    ("more_routed", ROUTE, {"rows": ROWS + 1}, "rows of the ROUTE"),
    ("more_experts", EXPERTS, {"num_experts": COUNT + 1}, "num_experts of the ROUTE"),
    ("fewer_experts", EXPERTS, {"num_experts": COUNT - 1}, "num_experts of the ROUTE"),
    ("more_ahead", EXPERTS, {"ahead": COUNT + 1}, "ahead at most num_experts"),
    ("read_before_it_is_written", AGAIN, {"fence": STORE}, "a STORE within its fence"),
    ("gelu_without_a_shift", LINEAR, {"shift": 0}, "shift of GELU in 1..63"),
    ("gelu_shifts_too_far", LINEAR, {"shift": 64}, "shift of GELU in 1..63"),
    ("experts_without_a_shift", EXPERTS, {"shift": 0}, "shift in 1..63"),
    ("weights_of_the_input", LINEAR, {"space": Space.INPUT}, "space MEMORY"),
    ("experts_of_the_output", EXPERTS, {"space": Space.OUTPUT}, "space MEMORY"),
    ("result_beyond_act", LINEAR, {"dst_base": 0xFFFF}, "result inside ACT"),
)
"""Name, changed instruction of the base and its changes, the rule that breaks; it breaks where a run would go wrong."""


@dataclass(frozen=True)
class Judged:
    """A Program with its data, and where and why it must be refused; both None for a legal one."""

    name: str
    job: Job
    program: Program
    fault: int | None = None
    rule: str | None = None


class Maker:
    """Programs whose data lie in one memory image."""

    def __init__(self, size: MachineSize, memory: bytearray) -> None:
        self.size, self.memory, self.rng = size, memory, np.random.default_rng(3)
        assert size.max_rows > ROWS
        assert size.max_experts > COUNT

    def _layer(self) -> bytes:
        weight = self.rng.integers(-128, 128, (self.size.pe, self.size.simd))
        zeros = np.zeros(self.size.pe, dtype=np.int64)
        return Dense(weight, zeros, zeros + (1 << 14), zeros + 22).stream(self.size)

    def _load(self, unit: Unit, words: int, **more: Any) -> Instruction:
        per_block = self.size.block_act_words if unit is Unit.ACT else self.size.block_res_words
        return Instruction(Opcode.LOAD, unit=unit, words=words, blocks=ceil_div(words, per_block), **more)

    def base(self) -> Program:
        """Tokens come, are routed, pass a GELU beside and the experts; the result leaves and is read back."""
        size, job = self.size, Job(self.size, self.rng, memory=self.memory)
        rows = ROWS + 1  # one more than are used, for Programs that use it
        tokens, _ = job.add(self.rng.bytes(rows * size.simd))
        clear, _ = job.add(bytes(rows * size.pe * 2))
        layer, blocks = job.add(self._layer())
        experts, _ = job.add(b"".join(self._layer() for _ in range(2 * size.max_experts)))
        dense = {"rows": ROWS, "k_words": 1, "n_tiles": 1, "src_stride": 1, "dst_stride": 1, "shift": 20}
        return (
            self._load(Unit.ACT, rows, mem_addr=tokens),
            self._load(Unit.RES, rows, mem_addr=clear),
            Instruction(Opcode.ROUTE, **dense, num_experts=COUNT, top_k=2, mem_addr=layer, blocks=blocks),
            Instruction(Opcode.LINEAR, post=Post.GELU, **dense, dst_base=rows, mem_addr=layer, blocks=blocks),
            Instruction(
                Opcode.EXPERTS, **dense, k_words2=1, n_tiles2=1, aux_base=2 * rows, aux_stride=1, num_experts=COUNT,
                ahead=1, fence=ROUTE + 1, mem_addr=experts, blocks=2 * blocks,
            ),
            Instruction(Opcode.STORE, space=Space.OUTPUT, unit=Unit.RES, words=ROWS),
            self._load(Unit.RES, ROWS, space=Space.OUTPUT, fence=STORE + 1),
        )  # fmt: skip

    def _legal(self, base: Program) -> Iterator[tuple[str, Program]]:
        yield "base", base
        yield "all_wait_for_all_before", tuple(replace(i, fence=index) for index, i in enumerate(base))
        yield "a_chain_to_nothing", tuple(replace(i, chain=1) for i in base)
        fewer = replace(base[ROUTE], rows=ROWS - 1), replace(base[EXPERTS], rows=ROWS - 1, fence=STORE + 1)
        yield "two_routes", (*base[:STORE], *fewer)
        yield "experts_twice", (*base[:STORE], base[EXPERTS])
        one = replace(base[ROUTE], num_experts=1, top_k=1), replace(base[EXPERTS], num_experts=1, ahead=1)
        yield "one_expert", (*base[:ROUTE], one[0], base[LINEAR], one[1])
        yield "the_first_store_read_last", (*base[:AGAIN], replace(base[STORE], src_base=1), base[AGAIN])

    def _illegal(self, base: Program) -> Iterator[tuple[str, Program, int, str]]:
        for name, index, change, rule in BROKEN:
            program = (*base[:index], replace(base[index], **change), *base[index + 1 :])
            yield name, program, EXPERTS if name == "more_routed" else index, rule
        unrouted = (*base[:ROUTE], replace(base[EXPERTS], fence=0))
        yield "experts_without_a_route", unrouted, ROUTE, "a ROUTE before it"
        late = (*unrouted, base[ROUTE])
        yield "experts_before_the_route", late, ROUTE, "a ROUTE before it"
        again = (*base[:STORE], replace(base[ROUTE], rows=ROWS - 1), replace(base[EXPERTS], fence=STORE + 1))
        yield "experts_of_the_route_before", again, STORE + 1, "rows of the ROUTE"
        early = (*again[:-1], replace(base[EXPERTS], rows=ROWS - 1))
        yield "experts_behind_an_old_fence", early, STORE + 1, "the ROUTE within its fence"
        unstored = (*base[:STORE], replace(base[AGAIN], fence=STORE))
        yield "read_without_a_store", unstored, STORE, "a STORE within its fence"

    def programs(self) -> Iterator[Judged]:
        """All of them."""
        base = self.base()
        for name, program in self._legal(base):
            yield Judged(name, self._job(program), program)
        for name, program, fault, rule in self._illegal(base):
            yield Judged(name, self._job(program), program, fault, rule)

    def _job(self, program: Program) -> Job:
        """Ready to run; what the last block of a LOAD from OUTPUT reads lies inside the buffer."""
        job = Job(self.size, self.rng, memory=self.memory)
        job.instructions.extend(i.encode() for i in program)
        job.output_lines = (ROWS + 1) * self.size.block_lines
        return job
