# SPDX-License-Identifier: Apache-2.0
"""Ideas switched off: Programs stay legal and do the same work, the same bits on the C++ machine; time only grows."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from codesign.emit.bundle import BundleSource, write_bundle
from codesign.engines import Engine, simulate
from codesign.errors import InputError
from codesign.schedule import ArrayShape, Design, Options, Program, load_board, plan
from codesign.schedule.design import MIN_FIFO_BLOCKS
from codesign.schedule.isa import Instruction, Opcode, Unit
from codesign.schedule.legal import first_violation
from codesign.schedule.switches import Switches, best_shares, lacking, switched
from codesign.schedule.timing import InstructionTime, Lacking, ProgramTime, Shares, Supply, estimate
from codesign.spec import Graph
from tests.conftest import ARRAY, SHAPE, take_build
from tests.graphs import GraphShape, random_graph

BOARD = load_board("zcu104")
SUPPLY = Supply(16.0, 60.0)
SHARES = Shares(0.4, 0.3, 0.3)
GRAPH_SHAPE = GraphShape(tokens=21, dim=24, depth=4, hidden=40, experts=5)
NAMES = tuple(f.name for f in fields(Switches) if f.name != "queries_per_load")
IN_PROGRAM = NAMES[:4]
IN_HARDWARE = NAMES[4:]


def without(*names: str) -> Switches:
    return Switches(**dict.fromkeys(names, False))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return random_graph(np.random.default_rng(3), GRAPH_SHAPE)


@pytest.fixture(scope="module")
def design(graph: Graph) -> Design:
    return plan(graph, BOARD, Options(ArrayShape(16, 16)))


def tokens(program: Program) -> list[list[int]]:
    """Two experts for every token."""
    queues = []
    for i in (s.instruction for s in program.steps):
        if i.opcode is Opcode.EXPERTS:
            queues.append([i.rows, i.rows, *[0] * (i.num_experts - 2)])
    return queues


def cycles(design: Design, switches: Switches) -> int:
    program = switched(design, switches).tasks[0].plain
    code = [s.instruction for s in program.steps]
    return estimate(code, design.size, SUPPLY, tokens(program), lacking=lacking(switches, SHARES)).cycles


def test_everything_on_changes_nothing(design: Design) -> None:
    same = switched(design, Switches())
    assert same.size == design.size
    for before, after in zip(design.tasks, same.tasks, strict=True):
        assert after.plain.steps == before.plain.steps
        assert after.traced.steps == before.traced.steps
        assert after.traced.stored == before.traced.stored


@pytest.mark.parametrize("names", [*((n,) for n in IN_PROGRAM), IN_PROGRAM], ids=lambda n: "+".join(n))
def test_programs_are_legal_and_lie_in_the_image(design: Design, names: tuple[str, ...]) -> None:
    off = switched(design, without(*names))
    assert off.memory.startswith(design.memory)
    for task, old in zip(off.tasks, design.tasks, strict=True):
        assert task.macs == old.macs
        for program in (task.plain, task.traced):
            assert len(program.steps) <= off.size.max_instructions
            assert first_violation([step.instruction for step in program.steps], off.size) is None
            for index, step in enumerate(program.steps):
                at = program.addr * off.size.line_bytes + 64 * index
                assert off.memory[at : at + 64] == step.instruction.encode()
            for stored in program.stored:
                assert program.steps[stored.step + 1].instruction.opcode is Opcode.STORE


def test_each_token_is_routed_alone(design: Design) -> None:
    program = switched(design, without("expert_reordering")).tasks[0].traced
    code = [s.instruction for s in program.steps]
    at = [n for n, i in enumerate(code) if i.opcode is Opcode.EXPERTS]
    assert len(at) == 2 * GRAPH_SHAPE.tokens
    for n in at:
        route, experts = code[n - 1 : n + 1]
        assert (route.opcode, route.rows, route.chain) == (Opcode.ROUTE, 1, 0)
        assert (experts.rows, experts.ahead, experts.fence, experts.chain) == (1, 0, n, 0)
        assert route.src_base == experts.src_base
    first = code[at[0]]
    assert [code[n].dst_base for n in at[: GRAPH_SHAPE.tokens]] == [
        first.dst_base + row * first.dst_stride for row in range(GRAPH_SHAPE.tokens)
    ]
    assert not any(i.opcode is Opcode.STORE and i.unit is Unit.QUEUE for i in code)
    assert not any(s.unit is Unit.QUEUE for s in program.stored)


@pytest.mark.parametrize("queries", [1, 4, 8, 21, 100])
def test_queries_share_loads_of_keys(design: Design, queries: int) -> None:
    code = [s.instruction for s in switched(design, Switches(queries_per_load=queries)).tasks[0].plain.steps]
    whole = next(s.instruction for s in design.tasks[0].plain.steps if s.instruction.opcode is Opcode.ATTENTION)
    at = next(n for n, i in enumerate(code) if i.opcode is Opcode.ATTENTION)
    parts = code[at : at - (-GRAPH_SHAPE.tokens // queries)]
    assert sum(i.rows for i in parts) == whole.rows
    assert max(i.rows for i in parts) <= queries
    row = 0
    for i in parts:
        expected = replace(
            whole, rows=i.rows, src_base=whole.src_base + row * whole.src_stride,
            dst_base=whole.dst_base + row * whole.dst_stride,
        )  # fmt: skip
        assert i == expected
        row += i.rows
    after = code[at + len(parts)]
    assert after.opcode is Opcode.LINEAR
    assert after.chain == (queries >= GRAPH_SHAPE.tokens)  # its rows come from several instructions otherwise


def test_no_instruction_overlaps_without_overlap(design: Design) -> None:
    assert any(s.instruction.chain for s in design.tasks[0].plain.steps)
    off = switched(design, without("instruction_overlap"))
    assert not any(s.instruction.chain for t in off.tasks for p in (t.plain, t.traced) for s in p.steps)


def test_no_expert_is_read_ahead_without_prefetch(design: Design) -> None:
    assert any(s.instruction.ahead for s in design.tasks[0].plain.steps)
    off = switched(design, without("expert_prefetch"))
    assert off.size == replace(design.size, fifo_blocks=MIN_FIFO_BLOCKS)
    assert not any(s.instruction.ahead for t in off.tasks for p in (t.plain, t.traced) for s in p.steps)


def test_a_tiled_program_keeps_its_fences() -> None:
    graph = random_graph(np.random.default_rng(4), GraphShape(tokens=60, dim=40, depth=4, hidden=80, class_token=False))
    design = plan(graph, BOARD, Options(ArrayShape(16, 16), block_rows=16))
    off = switched(design, without("reordered_attention", "expert_reordering"))

    def fenced(program: Program) -> list[tuple[Instruction, Instruction]]:
        """(the LOAD, the last instruction that must be complete before it)."""
        code = [s.instruction for s in program.steps]
        return [(i, code[i.fence - 1]) for i in code if i.opcode is Opcode.LOAD and i.fence]

    before, after = fenced(design.tasks[0].plain), fenced(off.tasks[0].plain)
    assert before
    assert [w for _, w in after] == [w for _, w in before]
    assert all(w.opcode is Opcode.STORE for _, w in after)


@pytest.mark.parametrize("names", [*((n,) for n in NAMES), NAMES], ids=lambda n: "+".join(n))
def test_what_is_off_costs_cycles(design: Design, names: tuple[str, ...]) -> None:
    assert cycles(design, without(*names)) > cycles(design, Switches())


def test_in_hardware() -> None:
    assert all(without(name).in_hardware for name in IN_PROGRAM)
    assert not any(without(name).in_hardware for name in IN_HARDWARE)
    assert lacking(without(*IN_PROGRAM), Shares(0.5, 0.3, 0.2)) == Lacking()


def test_best_shares_go_with_the_root_of_the_work() -> None:
    program = [Instruction(o) for o in (Opcode.LINEAR, Opcode.ROUTE, Opcode.EXPERTS, Opcode.ATTENTION, Opcode.NORM)]
    times = tuple(InstructionTime(0, compute, 0, 0, 0) for compute in (81, 19, 400, 900, 0))
    assert best_shares(program, ProgramTime(0, times)) == Shares(10 / 60, 20 / 60, 30 / 60)
    with pytest.raises(InputError, match=r"^a Program must have dense layers, experts and attention to share"):
        best_shares(program[:2], ProgramTime(0, times[:2]))


def test_queries_per_load_must_be_positive() -> None:
    with pytest.raises(InputError, match=r"^queries_per_load must be 1 or more, not 0; give None for all$"):
        Switches(queries_per_load=0)


@pytest.mark.parametrize("names", [("expert_reordering", "instruction_overlap"), ("reordered_attention",)])
def test_bit_exact_on_the_cpp_machine(bundle: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    graph = random_graph(np.random.default_rng(7), SHAPE)
    off = switched(plan(graph, BOARD, Options(ARRAY)), without(*names))
    own = np.load(bundle / "data" / "images.npy")
    path = write_bundle(BundleSource(graph, off, own), tmp_path / "off")
    take_build(bundle, Engine.CSIM, path)
    result = simulate(path, Engine.CSIM, trace_tensors=True)
    assert result.bit_exact, result.mismatches
