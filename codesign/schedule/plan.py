# SPDX-License-Identifier: Apache-2.0
"""Sizes the machine for a graph and a board, and writes its programs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from codesign.errors import InputError
from codesign.passes import graph_bounds, slice_experts
from codesign.schedule import lower
from codesign.schedule.board import Board
from codesign.schedule.design import MIN_FIFO_BLOCKS, Design, MachineSize, TaskPrograms
from codesign.schedule.isa import BEAT_BITS, PLANES, SLICE_BITS, Unit, Width
from codesign.schedule.memories import check_fit, choose_memories, dsp48
from codesign.schedule.place import Group, Placement, group_nodes, place, row_words, whole
from codesign.schedule.stream import MemoryImage, ceil_div, weight_format
from codesign.schedule.tile import ROW_STEP, Tiling, lower_tiled, tile
from codesign.spec import AttentionParams, Graph, Node, OpKind, RouteParams

MIN_INSTRUCTIONS = 64
SIMD_CHOICES = (16, 32, 64)
PE_STEP = 16


@dataclass(frozen=True)
class ArrayShape:
    """The MAC array: `simd` input columns, `pe` output rows."""

    simd: int
    pe: int

    def __post_init__(self) -> None:
        if self.simd not in SIMD_CHOICES or self.pe % PE_STEP or not 0 < self.pe <= self.simd:
            raise InputError(
                f"array must be SIMDxPE with SIMD 16, 32 or 64 and PE a multiple of {PE_STEP} up to SIMD,"
                f" not {self.simd}x{self.pe}; choose for example 64x48"
            )

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
    block_rows: int | None = None
    """Token rows of a block of a tiled Program; None: tile only a model that does not fit, with the largest block."""
    machine: MachineSize | None = None
    """A machine that exists already (a bitstream): the model must fit it. Its array is used, `array` is not."""


@dataclass(frozen=True)
class _TaskPlan:
    task: str
    groups: tuple[Group, ...]
    placement: Placement | Tiling


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
    tiling = tasks[0].placement if isinstance(tasks[0].placement, Tiling) else None
    rows = tiling.rows if tiling else max([n.output.shape[0] for n in nodes] + [graph.input.shape[0]])
    keys = max((n.output.shape[0] for n in nodes if n.kind is OpKind.ATTENTION), default=1)
    experts = max((n.output.shape[1] for n in nodes if n.kind is OpKind.ROUTE), default=1)
    if experts > array.pe:
        raise InputError(f"num_experts must be at most pe = {array.pe}, not {experts}; choose a larger array")
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
        norm_dim_max=_norm_dim_max(graph, array.pe),
        max_instructions=MIN_INSTRUCTIONS,
        fifo_blocks=MIN_FIFO_BLOCKS,
    )


def _norm_dim_max(graph: Graph, pe: int) -> int:
    norm_dim = max((n.output.shape[1] for n in graph.nodes if n.kind is OpKind.NORM), default=1)
    return ceil_div(norm_dim, pe) * pe


def _stream_blocks(graph: Graph, size: MachineSize) -> int:
    """At least the blocks of a whole Program."""
    values = sum(c.values.size for c in graph.constants)
    return ceil_div(2 * values, size.block_bytes)


def best_array(graph: Graph, board: Board) -> ArrayShape:
    """The array with the fewest passes' cycles for the graph among those whose multipliers fit the board."""
    experts = max((n.output.shape[1] for n in graph.nodes if n.kind is OpKind.ROUTE), default=1)
    acc_bits = _accumulator_bits(graph)
    shapes = [
        ArrayShape(simd, pe)
        for simd in SIMD_CHOICES
        for pe in range(PE_STEP, simd + 1, PE_STEP)
        if pe >= experts and dsp48(simd, pe, acc_bits, _norm_dim_max(graph, pe)) <= board.resources.dsp
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
    given = options.machine
    array = ArrayShape(given.simd, given.pe) if given else options.array or best_array(graph, board)
    tasks, size = _fit(graph, board, array, options)
    image = MemoryImage(size.line_bytes, size.block_lines)
    programs = [_programs(graph, size, t, width, image) for width in options.widths for t in tasks]
    size = _on_machine(replace(size, max_instructions=_instructions(programs)), given)
    check_fit(size, board)
    stride = row_words(Unit.ACT, graph.input.shape[1], array.simd, array.pe)
    words = graph.input.shape[0] * stride
    blocks = ceil_div(words, size.block_act_words) + (isinstance(tasks[0].placement, Tiling))
    return Design(size, board, image.to_bytes(), tuple(programs), stride * array.simd, blocks * size.block_lines)


def _instructions(programs: list[TaskPrograms]) -> int:
    """Depth of the program store."""
    longest = max(len(t.traced.steps) for t in programs)
    return max(MIN_INSTRUCTIONS, 1 << (longest - 1).bit_length())


def _fit(graph: Graph, board: Board, array: ArrayShape, options: Options) -> tuple[tuple[_TaskPlan, ...], MachineSize]:
    """The first way that fits: all tensors on chip, or tiled over tokens with the largest block.

    Raises InputError of the smallest block when nothing fits.
    """
    refused: InputError | None = None
    for rows in (None, *_row_choices(graph)) if options.block_rows is None else (options.block_rows,):
        try:
            tasks = tuple(_task_plan(graph, out.task, out.tensor, array, rows) for out in graph.outputs)
            size = _size(graph, array, board, tasks)
            if options.machine is None:
                size = choose_memories(size, board, _stream_blocks(graph, size))
                check_fit(size, board)
            return tasks, _on_machine(size, options.machine)
        except InputError as error:
            refused = refused or error
    assert refused is not None
    raise refused


_CAPACITIES = ("act_words", "res_words", "max_rows", "key_words", "max_experts", "acc_bits", "norm_dim_max",
               "max_instructions")  # fmt: skip
"""Fields of a machine that must be at least what a model needs."""


def _on_machine(needed: MachineSize, given: MachineSize | None) -> MachineSize:
    """The machine that exists, if one is given. Raises InputError naming what the model needs more of."""
    if given is None:
        return needed
    for name in _CAPACITIES:
        need, have = getattr(needed, name), getattr(given, name)
        if need > have:
            raise InputError(
                f"{name} must be at most {have} on the given machine, not {need}; generate a larger machine"
            )
    return given


def common_machine(sizes: Sequence[MachineSize]) -> MachineSize:
    """The smallest machine that runs everything that each of the given machines (of one array) runs."""
    most = {name: max(getattr(size, name) for size in sizes) for name in (*_CAPACITIES, "fifo_blocks")}
    return replace(sizes[0], **most)


def _row_choices(graph: Graph) -> tuple[int, ...]:
    """Rows of a block, largest first: the tokens in 2, 3, .. blocks."""
    tokens = graph.input.shape[0]
    rows = (ceil_div(ceil_div(tokens, n), ROW_STEP) * ROW_STEP for n in range(2, ceil_div(tokens, ROW_STEP) + 1))
    return tuple(dict.fromkeys(r for r in rows if r < tokens))


def _task_plan(graph: Graph, task: str, output: str, array: ArrayShape, rows: int | None) -> _TaskPlan:
    groups = group_nodes(graph.nodes_of(task), output)
    if rows is None:
        return _TaskPlan(task, groups, place(graph, whole(graph, groups, output), array.simd, array.pe))
    return _TaskPlan(task, groups, tile(graph, groups, output, rows, array.simd, array.pe))


def _programs(graph: Graph, size: MachineSize, task: _TaskPlan, width: Width, image: MemoryImage) -> TaskPrograms:
    output = graph.output_of(task.task).tensor
    placement = task.placement
    sliced = graph if width is Width.STORED else slice_experts(graph, SLICE_BITS[width])
    if isinstance(placement, Tiling):
        groups = group_nodes(sliced.nodes_of(task.task), output)
        tiling = tile(sliced, groups, output, placement.rows, size.simd, size.pe)
        work = lower_tiled(sliced, size, tiling, image)
    else:
        groups = group_nodes(sliced.nodes_of(task.task), output)
        work = lower.lower(lower.Context(sliced, size, placement, image), groups)
    every = frozenset(one.tensor for one in work if one.tensor is not None)
    plain = lower.program(image, work, frozenset({output}))
    return TaskPrograms(task.task, width, plain, lower.program(image, work, every))
