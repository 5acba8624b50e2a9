# SPDX-License-Identifier: Apache-2.0
"""Sizes the machine for a graph and a board, and writes its programs."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.errors import InputError
from codesign.passes import accumulator_bits
from codesign.schedule import lower
from codesign.schedule.board import Board
from codesign.schedule.design import Design, MachineSize, TaskPrograms
from codesign.schedule.place import Group, Placement, group_nodes, place
from codesign.schedule.stream import MemoryImage, ceil_div
from codesign.spec import Graph, OpKind

BRAM36_WIDTH, BRAM36_DEPTH = 72, 512


@dataclass(frozen=True)
class ArrayShape:
    """The MAC array: `simd` input columns, `pe` output rows."""

    simd: int = 32
    pe: int = 32


@dataclass(frozen=True)
class _TaskPlan:
    task: str
    groups: tuple[Group, ...]
    placement: Placement


def _size(graph: Graph, array: ArrayShape, tasks: tuple[_TaskPlan, ...]) -> MachineSize:
    nodes = graph.nodes
    rows = max([n.output.shape[0] for n in nodes] + [graph.input.shape[0]])
    keys = max((n.output.shape[0] for n in nodes if n.kind is OpKind.ATTENTION), default=1)
    experts = max((n.output.shape[1] for n in nodes if n.kind is OpKind.ROUTE), default=1)
    norm_dim = max((n.output.shape[1] for n in nodes if n.kind is OpKind.NORM), default=1)
    if experts > array.pe:
        raise InputError(f"num_experts must be at most pe = {array.pe}, not {experts}; choose a larger array")
    return MachineSize(
        simd=array.simd,
        pe=array.pe,
        act_words=max(t.placement.act_words for t in tasks),
        res_words=max(t.placement.res_words for t in tasks),
        max_rows=rows,
        key_words=ceil_div(keys, array.simd),
        max_experts=experts,
        acc_bits=accumulator_bits(graph),
        norm_dim_max=ceil_div(norm_dim, array.pe) * array.pe,
    )


def _bram(width: int, depth: int) -> int:
    return ceil_div(width, BRAM36_WIDTH) * ceil_div(depth, BRAM36_DEPTH)


def bram36(size: MachineSize) -> int:
    """BRAM36 blocks of the machine's large memories (an estimate: widths over 72, depths over 512, no URAM)."""
    return (
        2 * _bram(8 * size.simd, size.act_words)
        + _bram(16 * size.pe, size.res_words)
        + _bram(16 * size.simd, size.max_rows * size.key_words)
        + _bram(size.acc_bits * size.pe, size.max_rows)
        + _bram(32, size.max_experts * (size.max_rows + 1))
        + 2 * _bram(128, size.fifo_beats)
    )


def check_fit(size: MachineSize, board: Board) -> None:
    """Raises InputError naming the resource, what is needed, what the board has, and what to change."""
    dsp = size.macs
    if dsp > board.resources.dsp:
        raise InputError(
            f"DSP must be at most {board.resources.dsp} on {board.name}, not {dsp}; choose a smaller array"
        )
    blocks = bram36(size)
    if blocks > board.resources.bram36:
        raise InputError(
            f"BRAM36 must be at most {board.resources.bram36} on {board.name}, not {blocks} (estimated);"
            " reduce tokens, embed_dim or hidden sizes"
        )


def plan(graph: Graph, board: Board, array: ArrayShape = ArrayShape()) -> Design:
    """A Design for the graph on the board.

    Raises InputError when an operator does not fit the machine or the machine does not fit the board.
    """
    tasks = []
    for out in graph.outputs:
        groups = group_nodes(graph.nodes_of(out.task), out.tensor)
        tasks.append(_TaskPlan(out.task, groups, place(graph, groups, out.tensor, array.simd, array.pe)))
    size = _size(graph, array, tuple(tasks))
    check_fit(size, board)
    image = MemoryImage()
    programs = []
    for t in tasks:
        ctx = lower.Context(graph, size, t.placement, image)
        steps = lower.lower(ctx, t.groups)
        output = graph.output_of(t.task).tensor
        every = frozenset(name for _, name in steps if name is not None)
        plain = lower.program(ctx, steps, frozenset({output}))
        programs.append(TaskPrograms(t.task, plain, lower.program(ctx, steps, every)))
        longest = len(programs[-1].traced.steps)
        if longest > size.max_instructions:
            raise InputError(
                f"a Program must have at most {size.max_instructions} instructions, not {longest}; use fewer blocks"
            )
    stride = ceil_div(graph.input.shape[1], array.simd)
    row_bytes = stride * array.simd
    beats = graph.input.shape[0] * stride * size.act_beats
    return Design(size, board, image.to_bytes(), tuple(programs), row_bytes, beats)
