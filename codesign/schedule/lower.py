# SPDX-License-Identifier: Apache-2.0
"""Turns one task's groups into macro-instructions, adding their streams to the memory image."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.schedule import stream
from codesign.schedule.design import MachineSize, Program, Step, Stored
from codesign.schedule.isa import BEAT_BITS, BEAT_BYTES, Instruction, Opcode, Post, Space, Unit
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
    """(mem_addr, beats) of a stream put into the memory image."""
    return ctx.image.add(data), ceil_div(len(data), BEAT_BYTES)


def load_input(ctx: Context) -> Step:
    """LOAD of the patches into ACT."""
    to = ctx.placement.of(ctx.graph.input.name)
    beats = to.words * ctx.size.act_beats
    return Step(
        "input",
        Instruction(Opcode.LOAD, space=Space.INPUT, unit=Unit.ACT, dst_base=to.base, words=to.words, beats=beats),
    )


def load_constant(ctx: Context, name: str) -> Step:
    """LOAD of an int16 constant [rows, columns] into its place in RES."""
    to = ctx.placement.of(name)
    values = stream.pad_to(ctx.graph.constant(name).values, (to.rows, to.stride * ctx.size.pe))
    addr, beats = _stream(ctx, values.astype("<i2").tobytes())
    return Step(
        name, Instruction(Opcode.LOAD, unit=Unit.RES, dst_base=to.base, words=to.words, mem_addr=addr, beats=beats)
    )


def linear(ctx: Context, group: Group) -> Step:
    """LINEAR with its GELU or residual ADD."""
    node, last = group.first, group.nodes[-1]
    assert isinstance(node.params, LinearParams)
    weight, bias = (ctx.graph.constant(n).values for n in node.inputs[1:])
    form = stream.weight_format(weight)
    addr, beats = _stream(ctx, stream.dense(weight, bias, node.params.requant, form, ctx.size))
    src, dst = ctx.placement.of(node.inputs[0]), ctx.placement.of(group.output.name)
    post, multiplier, shift, base = _post(node, last, dst)
    instruction = Instruction(
        Opcode.LINEAR,
        post=post,
        weight_format=form,
        rows=src.rows,
        k_words=src.stride,
        n_tiles=ceil_div(weight.shape[0], ctx.size.pe),
        src_base=src.base,
        src_stride=src.stride,
        dst_base=base,
        dst_stride=dst.stride,
        multiplier=multiplier,
        shift=shift,
        mem_addr=addr,
        beats=beats,
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
    addr, beats = _stream(ctx, stream.norm(gain, bias, ctx.size))
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
        beats=beats,
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
    return Step(node.name, instruction, macs=2 * q.rows * q.rows * q.columns)


def route(ctx: Context, group: Group) -> Step:
    """ROUTE: logits, then the expert queues."""
    node = group.first
    assert isinstance(node.params, RouteParams)
    weight, bias = (ctx.graph.constant(n).values for n in node.inputs[1:])
    form = stream.weight_format(weight)
    addr, beats = _stream(ctx, stream.dense(weight, bias, node.params.requant, form, ctx.size))
    src = ctx.placement.of(node.inputs[0])
    instruction = Instruction(
        Opcode.ROUTE,
        weight_format=form,
        rows=src.rows,
        k_words=src.stride,
        n_tiles=1,
        src_base=src.base,
        src_stride=src.stride,
        num_experts=weight.shape[0],
        top_k=node.params.top_k,
        mem_addr=addr,
        beats=beats,
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
        k_words=src.stride,
        n_tiles=ceil_div(w1.shape[1], ctx.size.pe),
        k_words2=hidden.stride,
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
        beats=len(streams[0]) // BEAT_BYTES,
    )
    return Step(node.name, instruction, macs=_routed_rows(ctx, node) * (w1[0].size + w2[0].size))


def _routed_rows(ctx: Context, node: Node) -> int:
    router = next(n for n in ctx.graph.nodes if n.output.name == node.inputs[1])
    assert isinstance(router.params, RouteParams)
    return router.params.top_k * router.output.shape[0]


LOWERINGS = {
    OpKind.LINEAR: linear,
    OpKind.NORM: norm,
    OpKind.ATTENTION: attention,
    OpKind.ROUTE: route,
    OpKind.EXPERTS: experts,
}
"""What lowers a group, by its first node. GELU and ADD are always fused into a LINEAR (`place.group_nodes`)."""


def lower(ctx: Context, groups: tuple[Group, ...]) -> tuple[tuple[Step, str | None], ...]:
    """All steps of a task in order, each with the tensor it materialises (None for a LOAD)."""
    steps: list[tuple[Step, str | None]] = [(load_input(ctx), None)]
    constants = {c.spec.name for c in ctx.graph.constants}
    for group in groups:
        residual = in_place_operand(group)
        if residual in constants:
            steps.append((load_constant(ctx, residual), None))
        steps.append((LOWERINGS[group.first.kind](ctx, group), group.output.name))
    return tuple(steps)


def store(ctx: Context, tensor: str, beat: int, step: int) -> tuple[Step, Stored]:
    """A STORE of a tensor to `beat` of the output buffer."""
    spec = ctx.graph.spec_of(tensor)
    if not any(name == tensor for name, _ in ctx.placement.places):  # the gates: they live in the queues
        entries = ctx.size.max_rows + 1
        words = ceil_div(spec.shape[1] * entries, _QUEUE_ENTRIES_PER_BEAT) * _QUEUE_ENTRIES_PER_BEAT
        instruction = Instruction(
            Opcode.STORE, space=Space.OUTPUT, unit=Unit.QUEUE, words=words, mem_addr=beat, beats=words * 32 // BEAT_BITS
        )
        return Step(f"store {tensor}", instruction), Stored(
            tensor, Unit.QUEUE, beat, spec.shape[0], spec.shape[1], entries, step
        )
    at = ctx.placement.of(tensor)
    lanes, word_beats = (
        (ctx.size.simd, ctx.size.act_beats) if at.unit is Unit.ACT else (ctx.size.pe, ctx.size.res_beats)
    )
    instruction = Instruction(
        Opcode.STORE,
        space=Space.OUTPUT,
        unit=at.unit,
        src_base=at.base,
        words=at.words,
        mem_addr=beat,
        beats=at.words * word_beats,
    )
    return Step(f"store {tensor}", instruction), Stored(
        tensor, at.unit, beat, at.rows, at.columns, at.stride * lanes, step
    )


def program(ctx: Context, steps: tuple[tuple[Step, str | None], ...], keep: frozenset[str]) -> Program:
    """A Program that stores the tensors in `keep` right after they are written; its code goes into the memory image."""
    out: list[Step] = []
    stored: list[Stored] = []
    beat = 0
    for step, tensor in steps:
        out.append(step)
        if tensor is not None and tensor in keep:
            extra, where = store(ctx, tensor, beat, len(out) - 1)
            out.append(extra)
            stored.append(where)
            beat += extra.instruction.beats
    addr = ctx.image.add(b"".join(s.instruction.encode() for s in out))
    return Program(tuple(out), addr, beat, tuple(stored))
