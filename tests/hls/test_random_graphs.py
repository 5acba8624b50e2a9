# SPDX-License-Identifier: Apache-2.0
"""Scheduled random graphs on the HLS machine: every tensor that a traced Program stores equals the reference."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from codesign.passes import slice_experts
from codesign.reference import run_task
from codesign.schedule import ArrayShape, Design, load_board, plan, striped, unstriped
from codesign.schedule.design import Program, Stored
from codesign.schedule.isa import SLICE_BITS, Opcode, Unit, WeightFormat, Width
from codesign.schedule.legal import violation
from codesign.schedule.plan import Options
from codesign.spec import ExpertsParams, Graph, IntType, Node
from tests.graphs import GraphShape, random_graph, random_input
from tests.hls.build import compile_hls
from tests.hls.programs import Ints, padded

INT4 = IntType(4)
BOARD = load_board("zcu104")
BOARD = BOARD.model_copy(update={"resources": BOARD.resources.model_copy(update={"dsp": 2520})})
"""Room for an array of 64 x 64."""
DROPPED = 4
"""Bits that int8 weights lose on the way to int4."""


@dataclass(frozen=True)
class Case:
    """A random graph on an array."""

    array: ArrayShape
    shape: GraphShape
    int4_experts: bool = False
    widths: tuple[Width, ...] = (Width.STORED,)
    block_rows: int | None = None

    @property
    def name(self) -> str:
        s, kind = self.shape, "ternary" if self.shape.ternary else "int4" if self.int4_experts else "int8"
        blocks = f"-{self.block_rows}rows" if self.block_rows else ""
        return f"{self.array.simd}x{self.array.pe}-{s.tokens}t{s.dim}d{kind}-{len(self.widths)}{blocks}"


SLICES = (Width.STORED, Width.SLICE4, Width.SLICE2)
CASES = [
    Case(ArrayShape(16, 16), GraphShape()),
    Case(
        ArrayShape(16, 16), GraphShape(tokens=17, dim=32, heads=3, head_dim=9, experts=5, ternary=False), widths=SLICES
    ),
    Case(ArrayShape(32, 16), GraphShape(tokens=33, dim=40, heads=2, head_dim=20, hidden=70, ternary=False), True),
    Case(
        ArrayShape(32, 32),
        GraphShape(tokens=49, dim=64, heads=4, hidden=96, expert_hidden=64, top_k=3, ternary=False),
        widths=SLICES,
    ),
    Case(ArrayShape(64, 48), GraphShape(tokens=65, dim=48, heads=3, head_dim=16, hidden=144, experts=16, depth=4)),
    Case(ArrayShape(64, 48), GraphShape(tokens=50, dim=192, heads=3, head_dim=64, hidden=336, ternary=False), True),
    Case(ArrayShape(32, 16), GraphShape(tokens=40, dim=32, heads=2, head_dim=16, class_token=False), block_rows=12),
    Case(ArrayShape(64, 64), GraphShape(tokens=26, dim=72, heads=6, head_dim=12, hidden=130, expert_hidden=70)),
]


def with_int4_experts(graph: Graph) -> Graph:
    """The graph with its int8 experts' weights and biases divided by 16, and as much less taken off their sums."""
    names = {n for node in graph.nodes if isinstance(node.params, ExpertsParams) for n in node.inputs[3:]}
    weights = {n for n in names if n.endswith((".w1", ".w2"))}
    constants = tuple(
        replace(
            c, spec=replace(c.spec, type=INT4 if c.spec.name in weights else c.spec.type), values=c.values >> DROPPED
        )
        if c.spec.name in names
        else c
        for c in graph.constants
    )
    return replace(graph, constants=constants, nodes=tuple(map(_rescaled, graph.nodes)))


def _rescaled(node: Node) -> Node:
    if not isinstance(node.params, ExpertsParams):
        return node
    fc1, fc2 = (
        tuple(replace(r, shift=tuple(s - DROPPED for s in r.shift)) for r in layer)
        for layer in (node.params.fc1, node.params.fc2)
    )
    return replace(node, params=replace(node.params, fc1=fc1, fc2=fc2))


def run(csim: Path, folder: Path, design: Design, program: Program, x: Ints) -> bytes:
    """The output buffer in line order of a Program on an input."""
    size = design.size
    rows = padded(x, x.shape[0], design.input_row_bytes).astype("i1").tobytes()
    buffer = rows + bytes(design.input_lines * size.line_bytes - len(rows))
    (folder / "memory.bin").write_bytes(striped(design.memory, size.ports))
    (folder / "inputs.bin").write_bytes(striped(buffer, size.ports))
    numbers = (program.addr, len(program.steps), len(buffer), program.output_lines * size.line_bytes, 1)
    command = [str(csim), "memory.bin", "inputs.bin", "outputs.bin", *map(str, numbers)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return unstriped((folder / "outputs.bin").read_bytes(), size.ports)


def stored_rows(output: bytes, stored: Stored, line_bytes: int) -> Ints:
    """Rows `first_row` .. of a tensor, [rows, columns]; of gates, all of them."""
    dtype = {Unit.ACT: "i1", Unit.RES: "<i2", Unit.QUEUE: "<u4"}[stored.unit]
    rows = stored.columns if stored.unit is Unit.QUEUE else stored.rows
    values = np.frombuffer(output, dtype, rows * stored.row_elements, stored.line * line_bytes).astype(np.int64)
    values = values.reshape(rows, stored.row_elements)
    if stored.unit is not Unit.QUEUE:
        return values[:, : stored.columns]
    gates = np.zeros((stored.rows, stored.columns), dtype=np.int64)
    for e, queue in enumerate(values):
        entries = queue[1 : 1 + queue[0]]
        gates[entries & 0xFFFF, e] = entries >> 16
    return gates


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_tensor_of_every_task(tmp_path: Path, case: Case) -> None:
    rng = np.random.default_rng(case.shape.tokens)
    graph = random_graph(rng, case.shape)
    if case.int4_experts:
        graph = with_int4_experts(graph)
    design = plan(graph, BOARD, Options(case.array, case.widths, case.block_rows))
    csim = compile_hls(tmp_path, design.size, ("src/top.cpp", "tb/csim_main.cpp"), "c++17")
    formats = {
        s.instruction.weight_format for s in design.tasks[0].plain.steps if s.instruction.opcode is Opcode.EXPERTS
    }
    ternary, int4 = case.shape.ternary, case.int4_experts
    assert formats == {WeightFormat.INT2 if ternary else WeightFormat.INT4 if int4 else WeightFormat.INT8}
    compared = 0
    for task in design.tasks:
        broken = [(s.name, violation(s.instruction, design.size)) for s in task.traced.steps]
        assert all(rule is None for _, rule in broken), broken
        wanted = graph if task.width is Width.STORED else slice_experts(graph, SLICE_BITS[task.width])
        x = random_input(rng, graph)
        want = run_task(wanted, task.task, x)
        output = run(csim, tmp_path, design, task.traced, x)
        for stored in task.traced.stored:
            got = stored_rows(output, stored, design.size.line_bytes)
            rows = want[stored.tensor][stored.first_row : stored.first_row + stored.rows]
            np.testing.assert_array_equal(got, rows, err_msg=f"{task.task} {task.width.name} {stored.tensor}")
            compared += 1
    assert compared >= 10 * len(design.tasks)
