# SPDX-License-Identifier: Apache-2.0
"""Plans: legal instructions, chains that respect what still runs, tiling over tokens, memories that fit the board."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.schedule import ArrayShape, Design, MachineSize, MemoryKind, Options, Program, Width, load_board, plan
from codesign.schedule.isa import Instruction, Opcode, Post, Space, Unit
from codesign.schedule.legal import first_violation, violation
from codesign.schedule.memories import check_fit, choose_memories, cost
from codesign.schedule.plan import common_machine
from tests.graphs import GraphShape, random_graph

BOARD = load_board("zcu104")
ARRAYS = (ArrayShape(16, 16), ArrayShape(32, 16), ArrayShape(32, 32), ArrayShape(64, 48))
TILED = GraphShape(tokens=60, dim=40, depth=4, hidden=80, class_token=False)


def programs(design: Design) -> list[Program]:
    return [p for t in design.tasks for p in (t.plain, t.traced)]


def written(i: Instruction, size: MachineSize) -> set[tuple[Unit, int]]:
    """Words an instruction writes."""
    if i.opcode is Opcode.LOAD:
        return {(i.unit, i.dst_base + w) for w in range(i.words)}
    if i.opcode in (Opcode.STORE, Opcode.ROUTE):
        return set()
    res = i.opcode is Opcode.EXPERTS or (i.opcode is Opcode.LINEAR and i.post in (Post.INT16, Post.ADD))
    words = {(Unit.RES if res else Unit.ACT, i.dst_base + w) for w in range(i.rows * i.dst_stride)}
    if i.opcode is Opcode.EXPERTS:
        words |= {(Unit.ACT, i.aux_base + w) for w in range(i.rows * i.aux_stride)}
    return words


def read(i: Instruction, size: MachineSize) -> set[tuple[Unit, int]]:
    """Words an instruction reads, but for the residual it adds to."""
    if i.opcode is Opcode.LOAD:
        return set()
    if i.opcode is Opcode.STORE:
        return {(i.unit, i.src_base + w) for w in range(i.words)}
    unit = Unit.RES if i.opcode is Opcode.NORM else Unit.ACT
    words = {(unit, i.src_base + w) for w in range(i.rows * i.src_stride)}
    if i.opcode is Opcode.ATTENTION:
        for base in (i.aux_base, i.aux2_base):
            words |= {(unit, base + w) for w in range(i.keys * i.src_stride)}
    return words


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.simd}x{a.pe}")
@pytest.mark.parametrize("block_rows", [None, 16, 48])
def test_every_instruction_is_legal(array: ArrayShape, block_rows: int | None) -> None:
    odd = replace(TILED, dim=40 + array.simd % 9, expert_hidden=24)
    whole_words = replace(TILED, dim=64, expert_hidden=128, ternary=False)
    graph = random_graph(np.random.default_rng(1), odd if block_rows == 48 else whole_words)
    widths = (Width.STORED,) if block_rows == 48 else (Width.STORED, Width.SLICE4, Width.SLICE2)
    design = plan(graph, BOARD, Options(array, widths, block_rows))
    assert [(t.task, t.width) for t in design.tasks] == [(t, w) for w in widths for t in graph.tasks]
    for program in programs(design):
        assert first_violation([step.instruction for step in program.steps], design.size) is None
        for step in program.steps:
            assert Instruction.decode(step.instruction.encode()) == step.instruction


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.simd}x{a.pe}")
@pytest.mark.parametrize("block_rows", [None, 32])
def test_a_chained_instruction_leaves_its_predecessor_alone(array: ArrayShape, block_rows: int | None) -> None:
    """What an overlapped instruction writes is neither read nor written by the instruction that may still run."""
    design = plan(random_graph(np.random.default_rng(2), TILED), BOARD, Options(array, block_rows=block_rows))
    chains = 0
    for program in programs(design):
        for before, step in zip(program.steps, program.steps[1:], strict=False):
            earlier, i = before.instruction, step.instruction
            if not i.chain:
                continue
            chains += 1
            touched = read(earlier, design.size) | written(earlier, design.size)
            in_place = i.post is Post.ADD and earlier.opcode is Opcode.NORM
            assert in_place or not written(i, design.size) & touched, (before.name, step.name)
    assert chains > 20


def test_slices_that_would_read_padding_are_refused() -> None:
    graph = random_graph(np.random.default_rng(1), replace(TILED, dim=40, ternary=False))
    with pytest.raises(InputError, match=r"sliced experts must have inputs .* multiples of simd = 16, not 40 and 16"):
        plan(graph, BOARD, Options(ARRAYS[0], (Width.SLICE4,)))
    with pytest.raises(InputError, match=r"experts must be int8 to be sliced to 4 bits, not int2; export int8 experts"):
        plan(random_graph(np.random.default_rng(1), TILED), BOARD, Options(ARRAYS[0], (Width.SLICE4,)))


def test_experts_wait_for_their_queues_only_where_they_must() -> None:
    design = plan(random_graph(np.random.default_rng(2)), BOARD, Options(ARRAYS[0]))
    for program in programs(design):
        for at, step in enumerate(program.steps):
            if step.instruction.opcode is Opcode.EXPERTS:
                assert step.instruction.fence == at
                assert step.instruction.ahead <= step.instruction.num_experts


def test_tiled_blocks_cover_every_row_once() -> None:
    graph = random_graph(np.random.default_rng(5), TILED)
    design = plan(graph, BOARD, Options(ARRAYS[0], block_rows=16))
    assert design.size.max_rows == 16
    for task in design.tasks:
        for program in (task.plain, task.traced):
            pieces: dict[str, list[range]] = {}
            for s in program.stored:
                pieces.setdefault(s.tensor, []).append(range(s.first_row, s.first_row + s.rows))
            for tensor, ranges in pieces.items():
                rows = [r for one in ranges for r in one]
                assert rows == list(range(graph.spec_of(tensor).shape[0])), tensor
        lines = [s.line for s in task.plain.stored]
        row_bytes = 2 * task.plain.stored[0].row_elements
        assert lines == [16 * at * row_bytes // design.size.line_bytes for at in range(len(lines))]
        for at, step in enumerate(task.plain.steps):
            i = step.instruction
            if i.opcode is Opcode.LOAD and i.space is Space.OUTPUT:
                stored = task.plain.steps[i.fence - 1].instruction
                assert stored.opcode is Opcode.STORE
                assert (stored.mem_addr, stored.words) == (i.mem_addr, i.words)
                assert i.fence <= at


def test_a_model_too_big_for_the_chip_is_tiled() -> None:
    shape = replace(TILED, tokens=800, dim=96, hidden=3072, depth=2, experts=2, expert_hidden=64, patch=2)
    design = plan(random_graph(np.random.default_rng(6), shape), BOARD, Options(ArrayShape(64, 48)))
    assert design.size.max_rows < 800
    check_fit(design.size, BOARD)


def test_a_tiled_class_token_is_refused() -> None:
    with pytest.raises(InputError, match=r"must add at row 0 in a model that is tiled over tokens, not at row 1; use"):
        plan(random_graph(np.random.default_rng(6)), BOARD, Options(ARRAYS[0], block_rows=16))


def test_the_best_array_uses_the_boards_multipliers() -> None:
    """Large layers fill any array: the largest one that fits wins."""
    shape = GraphShape(tokens=65, dim=192, heads=3, head_dim=64, hidden=384, expert_hidden=192)
    size = plan(random_graph(np.random.default_rng(1), shape), BOARD).size
    assert (size.simd, size.pe, size.ports) == (64, 48, 4)
    assert cost(size).dsp <= BOARD.resources.dsp


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dsp": 100}, r"DSP48E2 must be at most 100 on zcu104, not \d+ \(estimated\); choose a smaller array"),
        ({"bram36": 3, "uram": 0}, r"BRAM36 must be at most 3 on zcu104, not \d+ \(estimated\); reduce tokens"),
    ],
)
def test_a_board_that_is_too_small_is_named(change: dict[str, int], message: str) -> None:
    board = BOARD.model_copy(update={"resources": BOARD.resources.model_copy(update=change)})
    with pytest.raises(InputError, match=message):
        plan(random_graph(np.random.default_rng(1)), board, Options(ARRAYS[0]))


def test_memories_prefer_a_deep_fifo_and_fit() -> None:
    size = MachineSize(64, 48, 4, 5000, 600, 129, 3, 16, 27, 192, 256, 32)
    chosen = choose_memories(size, BOARD, 100_000)
    assert chosen.fifo_blocks == 4096
    assert chosen.fifo_memory is MemoryKind.URAM
    check_fit(chosen, BOARD)
    assert choose_memories(size, BOARD, 20).fifo_blocks == 32


@pytest.mark.parametrize(
    ("opcode", "change", "rule"),
    [
        (Opcode.LINEAR, {"rows": 0}, "rows in 1..max_rows"),
        (Opcode.LINEAR, {"rows": 4000}, "rows in 1..max_rows"),
        (Opcode.LINEAR, {"blocks": 3}, "blocks of the dense stream"),
        (Opcode.LINEAR, {"src_base": 60000}, "x inside ACT"),
        (Opcode.LINEAR, {"dst_base": 60000}, "result inside"),
        (Opcode.NORM, {"dim": 0}, "dim in its tiles"),
        (Opcode.ATTENTION, {"keys": 5000}, "keys in 1..key_words"),
        (Opcode.ROUTE, {"top_k": 0}, "top_k in 1..num_experts"),
        (Opcode.EXPERTS, {"num_experts": 200}, "num_experts in 1..max_experts"),
        (Opcode.EXPERTS, {"widths": 3}, "known widths"),
        (Opcode.EXPERTS, {"widths": 1}, "slices of INT8 only"),
        (Opcode.LOAD, {"words": 1 << 20}, "words inside the memory"),
        (Opcode.STORE, {"space": Space.INPUT}, "space OUTPUT"),
    ],
)
def test_illegal_instructions_name_the_rule(opcode: Opcode, change: dict[str, int], rule: str) -> None:
    design = plan(random_graph(np.random.default_rng(2)), BOARD, Options(ARRAYS[0]))
    good = next(s.instruction for p in programs(design) for s in p.steps if s.instruction.opcode is opcode)
    found = violation(replace(good, **change), design.size)
    assert found is not None
    assert rule in found


def test_several_models_share_a_machine() -> None:
    graphs = [
        random_graph(np.random.default_rng(s), GraphShape(tokens=t, dim=d)) for s, t, d in ((0, 9, 40), (1, 17, 16))
    ]
    own = [plan(g, BOARD, Options(ARRAYS[0])).size for g in graphs]
    machine = common_machine(own)
    assert machine.act_words == max(s.act_words for s in own)
    for graph in graphs:
        assert plan(graph, BOARD, Options(machine=machine)).size == machine
    with pytest.raises(
        InputError, match=r"res_words must be at most 1 on the given machine, not \d+; generate a larger"
    ):
        plan(graphs[0], BOARD, Options(machine=replace(machine, res_words=1)))


@pytest.mark.parametrize(("simd", "pe"), [(7, 9), (64, 0), (64, 65), (16, 32), (48, 16), (64, 40)])
def test_an_array_that_cannot_be_built(simd: int, pe: int) -> None:
    message = (
        "array must be SIMDxPE with SIMD 16, 32 or 64 and PE a multiple of 16 up to SIMD,"
        f" not {simd}x{pe}; choose for example 64x48"
    )
    with pytest.raises(InputError, match=f"^{message}$"):
        ArrayShape.parse(f"{simd}x{pe}")
