# SPDX-License-Identifier: Apache-2.0
"""Sizes the machine for a graph and a board, and writes its programs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from codesign.errors import InputError
from codesign.passes import graph_bounds, slice_experts
from codesign.schedule import lower
from codesign.schedule.board import Board
from codesign.schedule.design import MIN_FIFO_BLOCKS, Design, MachineSize, TaskPrograms
from codesign.schedule.isa import BEAT_BITS, PLANES, SLICE_BITS, Width
from codesign.schedule.memories import LANE_DSP, SHARED_DSP, check_fit, choose_memories
from codesign.schedule.place import Group, Placement, group_nodes, place
from codesign.schedule.stream import MemoryImage, ceil_div, weight_format
from codesign.spec import AttentionParams, Graph, Node, OpKind, RouteParams

SIMD_CHOICES = (16, 32, 64)
PE_STEP = 16


@dataclass(frozen=True)
class ArrayShape:
    """The MAC array: `simd` input columns, `pe` output rows."""

    simd: int
    pe: int

    @staticmethod
    def parse(text: str) -> ArrayShape:
        """From `64x48`. Raises InputError for anything else."""
        match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
        if match is None:
            raise InputError(f"array must be SIMDxPE like 64x48, not {text!r}; correct it")
        return ArrayShape(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class Options:
    """What a user may choose: the array (None: the fastest that fits the board) and the widths of int8 experts that
    Programs are made for."""

    array: ArrayShape | None = None
    widths: tuple[Width, ...] = (Width.STORED,)


@dataclass(frozen=True)
class _TaskPlan:
    task: str
    groups: tuple[Group, ...]
    placement: Placement


def _accumulator_bits(graph: Graph) -> int:
    """Bits of the widest accumulator: the array's sums carry the factor 2**(8 - planes) of their weights."""
    bits = 1
    for bound in graph_bounds(graph):
        if bound.accumulator is None:
            continue
        node = next(n for n in graph.nodes if n.name == bound.node)
        weights = [graph.constant(n).values for n in _weights(node)]
        planes = PLANES[weight_format(*weights)] if weights else 8
        bits = max(bits, bound.accumulator.bits + 8 - planes)
    return bits


def _weights(node: Node) -> tuple[str, ...]:
    if node.kind is OpKind.EXPERTS:
        return node.inputs[3], node.inputs[5]
    return node.inputs[1:2] if node.kind in (OpKind.LINEAR, OpKind.ROUTE) else ()


def _ports(array: ArrayShape, board: Board) -> int:
    return next(n for n in (4, 2, 1) if n <= board.memory.ports and array.pe * array.simd % (BEAT_BITS * n) == 0)


def _size(graph: Graph, array: ArrayShape, board: Board, tasks: tuple[_TaskPlan, ...]) -> MachineSize:
    nodes = graph.nodes
    rows = max([n.output.shape[0] for n in nodes] + [graph.input.shape[0]])
    keys = max((n.output.shape[0] for n in nodes if n.kind is OpKind.ATTENTION), default=1)
    experts = max((n.output.shape[1] for n in nodes if n.kind is OpKind.ROUTE), default=1)
    norm_dim = max((n.output.shape[1] for n in nodes if n.kind is OpKind.NORM), default=1)
    if experts > array.pe:
        raise InputError(f"num_experts must be at most pe = {array.pe}, not {experts}; choose a larger array")
    longest = max(2 * len(t.groups) + 4 for t in tasks)
    return MachineSize(
        simd=array.simd,
        pe=array.pe,
        ports=_ports(array, board),
        act_words=max(t.placement.act_words for t in tasks),
        res_words=max(t.placement.res_words for t in tasks),
        max_rows=rows,
        key_words=ceil_div(keys, array.simd),
        max_experts=experts,
        acc_bits=_accumulator_bits(graph),
        norm_dim_max=ceil_div(norm_dim, array.pe) * array.pe,
        max_instructions=1 << (longest - 1).bit_length(),
        fifo_blocks=MIN_FIFO_BLOCKS,
    )


def _stream_blocks(graph: Graph, size: MachineSize) -> int:
    """At least the blocks of a whole Program."""
    values = sum(c.values.size for c in graph.constants)
    return ceil_div(2 * values, size.block_bytes)


def best_array(graph: Graph, board: Board) -> ArrayShape:
    """The array with the fewest passes' cycles for the graph among those whose multipliers fit the board."""
    experts = max((n.output.shape[1] for n in graph.nodes if n.kind is OpKind.ROUTE), default=1)
    shapes = [
        ArrayShape(simd, pe)
        for simd in SIMD_CHOICES
        for pe in range(PE_STEP, simd + 1, PE_STEP)
        if pe >= experts and simd * pe // 2 + LANE_DSP * pe + SHARED_DSP <= board.resources.dsp
    ]
    if not shapes:
        raise InputError(
            f"num_experts must fit the array's rows, at most {SIMD_CHOICES[-1]} on {board.name}, not {experts};"
            " use fewer experts"
        )
    return min(shapes, key=lambda shape: (pass_cycles(graph, shape.simd, shape.pe), shape.simd * shape.pe))


def pass_cycles(graph: Graph, simd: int, pe: int) -> int:
    """Cycles the array needs for one image of all tasks' nodes when it never waits."""
    return sum(_node_cycles(graph, node, simd, pe) for node in graph.nodes)


def _node_cycles(graph: Graph, node: Node, simd: int, pe: int) -> int:
    rows = node.output.shape[0]
    if node.kind in (OpKind.LINEAR, OpKind.ROUTE):
        outputs, inputs = graph.spec_of(node.inputs[1]).shape
        return rows * ceil_div(outputs, pe) * ceil_div(inputs, simd)
    if node.kind is OpKind.EXPERTS:
        _, hidden, dim = graph.spec_of(node.inputs[3]).shape
        router = next(n for n in graph.nodes if n.output.name == node.inputs[1])
        assert isinstance(router.params, RouteParams)
        tiles = ceil_div(hidden, pe) * ceil_div(dim, simd) + ceil_div(dim, pe) * ceil_div(hidden, simd)
        return rows * router.params.top_k * tiles
    if isinstance(node.params, AttentionParams):
        p = node.params
        scores = ceil_div(rows, pe) * ceil_div(p.head_dim, simd)
        return rows * p.num_heads * (scores + ceil_div(p.head_dim, pe) * ceil_div(rows, simd))
    return 0


def plan(graph: Graph, board: Board, options: Options = Options()) -> Design:
    """A Design for the graph on the board.

    Raises InputError when an operator does not fit the machine or the machine does not fit the board.
    """
    array = options.array or best_array(graph, board)
    tasks = []
    for out in graph.outputs:
        groups = group_nodes(graph.nodes_of(out.task), out.tensor)
        tasks.append(_TaskPlan(out.task, groups, place(graph, groups, out.tensor, array.simd, array.pe)))
    size = _size(graph, array, board, tuple(tasks))
    size = choose_memories(size, board, _stream_blocks(graph, size))
    check_fit(size, board)
    image = MemoryImage(size.line_bytes)
    programs = [_programs(graph, size, t, width, image) for width in options.widths for t in tasks]
    stride = ceil_div(graph.input.shape[1], array.simd)
    blocks = ceil_div(graph.input.shape[0] * stride, size.block_act_words)
    return Design(size, board, image.to_bytes(), tuple(programs), stride * array.simd, blocks * size.block_lines)


def _programs(graph: Graph, size: MachineSize, task: _TaskPlan, width: Width, image: MemoryImage) -> TaskPrograms:
    sliced = graph if width is Width.STORED else slice_experts(graph, SLICE_BITS[width])
    groups = group_nodes(sliced.nodes_of(task.task), graph.output_of(task.task).tensor)
    ctx = lower.Context(sliced, size, task.placement, image)
    steps = lower.lower(ctx, groups)
    every = frozenset(name for _, name in steps if name is not None)
    plain = lower.program(ctx, steps, frozenset({graph.output_of(task.task).tensor}))
    traced = lower.program(ctx, steps, every)
    if len(traced.steps) > size.max_instructions:
        raise InputError(
            f"a Program must have at most {size.max_instructions} instructions, not {len(traced.steps)};"
            " use fewer layers"
        )
    return TaskPrograms(task.task, width, plain, traced)
