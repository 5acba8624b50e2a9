# SPDX-License-Identifier: Apache-2.0
"""Turns one task's groups into macro-instructions, adding their streams to the memory image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType

from codesign.errors import InputError
from codesign.schedule import stream
from codesign.schedule.design import MachineSize, Program, Step, Stored
from codesign.schedule.isa import (
    MAX_WIDTHS,
    PLANES,
    SLICE_BITS,
    WIDTH_BITS,
    Instruction,
    Opcode,
    Post,
    Space,
    Unit,
    WeightFormat,
    Width,
)
from codesign.schedule.place import Group, Place, Placement, hidden_name, in_place_operand
from codesign.schedule.stream import MemoryImage, ceil_div
from codesign.spec import (
    AddParams,
    AttentionParams,
    ExpertsParams,
    GeluParams,
    Graph,
    LinearParams,
    Node,
    NormParams,
    OpKind,
    RouteParams,
)

_QUEUE_ENTRIES_PER_BEAT = 4


@dataclass(frozen=True)
class Context:
    """What the lowering of one task works with."""

    graph: Graph
    size: MachineSize
    placement: Placement
    image: MemoryImage


def _stream(ctx: Context, data: bytes) -> tuple[int, int]:
    """(mem_addr, blocks) of a stream put into the memory image, padded to whole blocks."""
    blocks = ceil_div(len(data), ctx.size.block_bytes)
    return ctx.image.add(data + bytes(blocks * ctx.size.block_bytes - len(data))), blocks


@dataclass(frozen=True)
class Work:
    """A step, the tensor it materialises, and how it takes part in a tiled Program (`codesign.schedule.tile`)."""

    step: Step
    ctx: Context
    tensor: str | None = None
    first_row: int = 0
    scratch: bool = False
    """Its `mem_addr` counts from the start of the scratch rows in the output buffer."""
    writes: str | None = None
    """Name of the scratch rows that it stores."""
    reads: str | None = None
    """Name of the scratch rows that it loads: they must be stored before they are requested."""


def load_rows(ctx: Context, name: str, space: Space, line: int) -> Step:
    """LOAD of a placed tensor from `line` of a space."""
    to = ctx.placement.of(name)
    per_block = ctx.size.block_act_words if to.unit is Unit.ACT else ctx.size.block_res_words
    blocks = ceil_div(to.words, per_block)
    instruction = Instruction(
        Opcode.LOAD, space=space, unit=to.unit, dst_base=to.base, words=to.words, mem_addr=line, blocks=blocks
    )
    return Step(name, instruction)


def load_constant(ctx: Context, name: str, first_row: int = 0) -> Step:
    """LOAD of rows of an int16 constant [rows, columns] into its place in RES."""
    to = ctx.placement.of(name)
    rows = ctx.graph.constant(name).values[first_row : first_row + to.rows]
    values = stream.pad_to(rows, (to.rows, to.stride * ctx.size.pe))
    addr, _ = _stream(ctx, values.astype("<i2").tobytes())
    return load_rows(ctx, name, Space.MEMORY, addr)


def linear(ctx: Context, group: Group) -> Step:
    """LINEAR with its GELU or residual ADD."""
    node, last = group.first, group.nodes[-1]
    assert isinstance(node.params, LinearParams)
    weight, bias = (ctx.graph.constant(n).values for n in node.inputs[1:])
    form = stream.weight_format(weight)
    addr, blocks = _stream(ctx, stream.dense(weight, bias, node.params.requant, form, ctx.size))
    src, dst = ctx.placement.of(node.inputs[0]), ctx.placement.of(group.output.name)
    post, multiplier, shift, base = _post(node, last, dst)
    instruction = Instruction(
        Opcode.LINEAR,
        post=post,
        weight_format=form,
        rows=src.rows,
        k_words=ceil_div(weight.shape[1], ctx.size.simd),
        n_tiles=ceil_div(weight.shape[0], ctx.size.pe),
        src_base=src.base,
        src_stride=src.stride,
        dst_base=base,
        dst_stride=dst.stride,
        multiplier=multiplier,
        shift=shift,
        mem_addr=addr,
        blocks=blocks,
    )
    return Step(node.name, instruction, macs=src.rows * weight.size)


def _post(node: Node, last: Node, dst: Place) -> tuple[Post, int, int, int]:
    """(post, GELU multiplier, GELU shift, destination base)."""
    if isinstance(last.params, GeluParams):
        return Post.GELU, last.params.requant.multiplier[0], last.params.requant.shift[0], dst.base
    if isinstance(last.params, AddParams):
        return Post.ADD, 0, 0, dst.base + last.params.row_offset * dst.stride
    return (Post.INT8 if dst.unit is Unit.ACT else Post.INT16), 0, 0, dst.base


def norm(ctx: Context, group: Group) -> Step:
    """NORM from RES to ACT."""
    node = group.first
    assert isinstance(node.params, NormParams)
    gain, bias = (ctx.graph.constant(n).values for n in node.inputs[1:])
    addr, blocks = _stream(ctx, stream.norm(gain, bias, ctx.size))
    src, dst = ctx.placement.of(node.inputs[0]), ctx.placement.of(node.output.name)
    instruction = Instruction(
        Opcode.NORM,
        rows=src.rows,
        dim=len(gain),
        n_tiles=ceil_div(len(gain), ctx.size.pe),
        src_base=src.base,
        src_stride=src.stride,
        dst_base=dst.base,
        dst_stride=dst.stride,
        shift=node.params.shift,
        mem_addr=addr,
        blocks=blocks,
    )
    return Step(node.name, instruction)


def attention(ctx: Context, group: Group) -> Step:
    """ATTENTION over all heads."""
    node = group.first
    p = node.params
    assert isinstance(p, AttentionParams)
    q, k, v = (ctx.placement.of(n) for n in node.inputs)
    dst = ctx.placement.of(node.output.name)
    instruction = Instruction(
        Opcode.ATTENTION,
        rows=q.rows,
        keys=k.rows,
        num_heads=p.num_heads,
        dim=p.head_dim,
        src_base=q.base,
        src_stride=q.stride,
        aux_base=k.base,
        aux2_base=v.base,
        dst_base=dst.base,
        dst_stride=dst.stride,
        multiplier=p.score.multiplier[0],
        shift=p.score.shift[0],
        multiplier2=p.out.multiplier[0],
        shift2=p.out.shift[0],
    )
    return Step(node.name, instruction, macs=2 * q.rows * k.rows * q.columns)


def route(ctx: Context, group: Group) -> Step:
    """ROUTE: logits, then the expert queues."""
    node = group.first
    assert isinstance(node.params, RouteParams)
    weight, bias = (ctx.graph.constant(n).values for n in node.inputs[1:])
    form = stream.weight_format(weight)
    addr, blocks = _stream(ctx, stream.dense(weight, bias, node.params.requant, form, ctx.size))
    src = ctx.placement.of(node.inputs[0])
    instruction = Instruction(
        Opcode.ROUTE,
        weight_format=form,
        rows=src.rows,
        k_words=ceil_div(weight.shape[1], ctx.size.simd),
        n_tiles=1,
        src_base=src.base,
        src_stride=src.stride,
        num_experts=weight.shape[0],
        top_k=node.params.top_k,
        mem_addr=addr,
        blocks=blocks,
    )
    return Step(node.name, instruction, macs=src.rows * weight.size)


def experts(ctx: Context, group: Group) -> Step:
    """EXPERTS: one stream per expert, all of one length, back to back."""
    node = group.first
    p = node.params
    assert isinstance(p, ExpertsParams)
    w1, b1, w2, b2 = (ctx.graph.constant(n).values for n in node.inputs[3:])
    form = stream.weight_format(w1, w2)
    streams = [
        stream.dense(w1[e], b1[e], p.fc1[e], form, ctx.size) + stream.dense(w2[e], b2[e], p.fc2[e], form, ctx.size)
        for e in range(w1.shape[0])
    ]
    src, dst, hidden = (ctx.placement.of(n) for n in (node.inputs[0], node.output.name, hidden_name(node)))
    instruction = Instruction(
        Opcode.EXPERTS,
        weight_format=form,
        rows=src.rows,
        k_words=ceil_div(w1.shape[2], ctx.size.simd),
        n_tiles=ceil_div(w1.shape[1], ctx.size.pe),
        k_words2=ceil_div(w1.shape[1], ctx.size.simd),
        n_tiles2=ceil_div(w2.shape[1], ctx.size.pe),
        src_base=src.base,
        src_stride=src.stride,
        dst_base=dst.base,
        dst_stride=dst.stride,
        aux_base=hidden.base,
        aux_stride=hidden.stride,
        multiplier=p.gelu.multiplier[0],
        shift=p.gelu.shift[0],
        num_experts=w1.shape[0],
        mem_addr=_stream(ctx, b"".join(streams))[0],
        blocks=len(streams[0]) // ctx.size.block_bytes,
        ahead=_ahead(ctx, len(streams[0]), w1.shape[0]),
        widths=_widths(p, form, w1.shape[2], w1.shape[1], ctx.size.simd),
    )
    return Step(node.name, instruction, macs=_routed_rows(ctx, node) * (w1[0].size + w2[0].size))


def _ahead(ctx: Context, expert_bytes: int, num_experts: int) -> int:
    """How many experts are requested before routing is known: as many as the block FIFO can hold."""
    return min(num_experts, ctx.size.fifo_blocks * ctx.size.block_bytes // expert_bytes)


def _widths(params: ExpertsParams, form: WeightFormat, inputs: int, hidden: int, simd: int) -> int:
    """The `widths` field of the experts' slices."""
    if not params.slices:
        return 0
    code = {bits: width for width, bits in SLICE_BITS.items()} | {PLANES[form]: Width.STORED}
    if form is not WeightFormat.INT8 or len(params.slices) > MAX_WIDTHS:
        raise InputError(
            f"slices must be of int8 experts, at most {MAX_WIDTHS}, not of {len(params.slices)} {form.name} experts;"
            " generate without slices"
        )
    if inputs % simd or hidden % simd:  # a slice of a padding weight is not 0
        raise InputError(
            f"sliced experts must have inputs and hidden sizes that are multiples of simd = {simd}, not {inputs} and"
            f" {hidden}; choose an array with fewer columns, or generate without slices"
        )
    return sum(code[bits] << (WIDTH_BITS * e) for e, bits in enumerate(params.slices))


def _routed_rows(ctx: Context, node: Node) -> int:
    router = next(n for n in ctx.graph.nodes if n.output.name == node.inputs[1])
    assert isinstance(router.params, RouteParams)
    return router.params.top_k * ctx.placement.of(node.inputs[0]).rows


LOWERINGS = {
    OpKind.LINEAR: linear,
    OpKind.NORM: norm,
    OpKind.ATTENTION: attention,
    OpKind.ROUTE: route,
    OpKind.EXPERTS: experts,
}
"""What lowers a group, by its first node. GELU and ADD are always fused into a LINEAR (`place.group_nodes`)."""


def compute(ctx: Context, groups: tuple[Group, ...], first_row: int = 0) -> tuple[Work, ...]:
    """The steps of the groups in order, the LOADs of the constants they add to included."""
    work: list[Work] = []
    constants = {c.spec.name for c in ctx.graph.constants}
    for group in groups:
        residual = in_place_operand(group)
        if residual in constants:
            work.append(Work(load_constant(ctx, residual, first_row), ctx))
        work.append(Work(LOWERINGS[group.first.kind](ctx, group), ctx, group.output.name, first_row))
    return tuple(work)


def lower(ctx: Context, groups: tuple[Group, ...]) -> tuple[Work, ...]:
    """All steps of a task whose tensors stay on chip."""
    source = ctx.graph.input.name
    return (Work(load_rows(ctx, source, Space.INPUT, 0), ctx), *compute(ctx, groups))


def store(ctx: Context, tensor: str, line: int) -> tuple[Step, int]:
    """A STORE of a placed tensor to `line` of the output buffer, and how many lines it takes."""
    at = ctx.placement.of(tensor)
    instruction = Instruction(
        Opcode.STORE, space=Space.OUTPUT, unit=at.unit, src_base=at.base, words=at.words, mem_addr=line
    )
    beats = at.words * (ctx.size.act_beats if at.unit is Unit.ACT else ctx.size.res_beats)
    return Step(f"store {tensor}", instruction), ceil_div(beats, ctx.size.ports)


def store_queues(ctx: Context, tensor: str, line: int) -> tuple[Step, int]:
    """A STORE of the expert queues, which stand for the gates `tensor`."""
    experts = ctx.graph.spec_of(tensor).shape[1]
    words = ceil_div(experts * (ctx.size.max_rows + 1), _QUEUE_ENTRIES_PER_BEAT) * _QUEUE_ENTRIES_PER_BEAT
    instruction = Instruction(Opcode.STORE, space=Space.OUTPUT, unit=Unit.QUEUE, words=words, mem_addr=line)
    return Step(f"store {tensor}", instruction), ceil_div(words // _QUEUE_ENTRIES_PER_BEAT, ctx.size.ports)


def _stored(work: Work, line: int, step: int, rows: int) -> Stored:
    """What a STORE of the tensor that `work` wrote leaves at `line`."""
    ctx, tensor = work.ctx, work.tensor
    assert tensor is not None
    spec = ctx.graph.spec_of(tensor)
    if not ctx.placement.has(tensor):
        return Stored(tensor, Unit.QUEUE, line, work.first_row, rows, spec.shape[1], ctx.size.max_rows + 1, step)
    at = ctx.placement.of(tensor)
    lanes = ctx.size.simd if at.unit is Unit.ACT else ctx.size.pe
    return Stored(tensor, at.unit, line, work.first_row, at.rows, at.columns, at.stride * lanes, step)


_CHAINS = MappingProxyType(
    {
        Opcode.LINEAR: frozenset({Opcode.LINEAR, Opcode.ATTENTION, Opcode.NORM}),
        Opcode.ROUTE: frozenset({Opcode.NORM}),
        Opcode.NORM: frozenset({Opcode.LINEAR}),
    }
)
"""Which instruction may follow which without waiting for all of its rows."""


def chained(steps: list[Step]) -> tuple[Step, ...]:
    """The steps with `chain` set where a step may run on the heels of the one before (docs/machine.md).

    A chained instruction reads row r after the one before has finished row r, which, if chained too, had read its own
    row r after its predecessor had finished it, and so on: every row r of an unbroken chain is final. Equal row counts
    make sure that row r means the same token throughout.
    """
    out = steps[:1]
    for before, step in pairwise(steps):
        i, earlier = step.instruction, before.instruction
        if earlier.opcode in _CHAINS.get(i.opcode, frozenset()) and earlier.rows == i.rows:
            step = replace(step, instruction=replace(i, chain=1))
        out.append(step)
    return tuple(out)


def program(image: MemoryImage, work: tuple[Work, ...], keep: frozenset[str]) -> Program:
    """A Program that stores the tensors in `keep` right after they are written; its code goes into the memory image."""
    out: list[Step] = []
    stored: list[Stored] = []
    scratch: list[int] = []
    complete: dict[str, int] = {}
    line = 0
    for one in work:
        step = one.step
        if one.reads is not None:
            step = replace(step, instruction=replace(step.instruction, fence=complete[one.reads]))
        if step.instruction.opcode is Opcode.EXPERTS:
            step = replace(step, instruction=replace(step.instruction, fence=len(out)))
        out.append(step)
        if one.scratch:
            scratch.append(len(out) - 1)
        if one.writes is not None:
            complete[one.writes] = len(out)
        known = {(s.tensor, s.first_row) for s in stored}
        if one.tensor in keep and (one.tensor, one.first_row) not in known:
            put = store if one.ctx.placement.has(one.tensor) else store_queues
            extra, lines = put(one.ctx, one.tensor, line)
            stored.append(_stored(one, line, len(out) - 1, step.instruction.rows))
            out.append(extra)
            line += lines
    return _assemble(image, out, stored, scratch, line)


def _assemble(image: MemoryImage, out: list[Step], stored: list[Stored], scratch: list[int], line: int) -> Program:
    """Puts the scratch rows behind the stored tensors, chains the steps, and encodes them."""
    end = line
    for at in scratch:
        i = replace(out[at].instruction, mem_addr=out[at].instruction.mem_addr + line)
        out[at] = replace(out[at], instruction=i)
        if i.opcode is Opcode.LOAD:  # whole blocks are read
            end = max(end, i.mem_addr + i.blocks * image.block_lines)
    final = chained(out)
    addr = image.add(b"".join(s.instruction.encode() for s in final))
    return Program(final, addr, end, tuple(stored))
