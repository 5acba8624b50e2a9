# SPDX-License-Identifier: Apache-2.0
"""The HLS machine in C-simulation: hand-built Programs against codesign.reference, equal to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from codesign.reference import functions as f
from codesign.schedule.design import MachineSize
from codesign.schedule.isa import (
    ISA_VERSION,
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
from codesign.spec.types import INT8, INT16, IntType, Requant
from tests.hls.programs import Dense, Ints, Job, Slot, ceil_div, records

Csim = Callable[[MachineSize], Path]


def machine(simd: int, pe: int, ports: int, max_rows: int, max_experts: int, acc_bits: int, dim: int) -> MachineSize:
    return MachineSize(
        simd=simd,
        pe=pe,
        ports=ports,
        act_words=4096,
        res_words=2048,
        max_rows=max_rows,
        key_words=ceil_div(max_rows, simd),
        max_experts=max_experts,
        acc_bits=acc_bits,
        norm_dim_max=ceil_div(dim, pe) * pe,
        max_instructions=256,
        fifo_blocks=32,
    )


SIZES = [
    machine(16, 16, ports=2, max_rows=70, max_experts=6, acc_bits=24, dim=100),
    machine(32, 16, ports=1, max_rows=129, max_experts=16, acc_bits=23, dim=192),
    machine(32, 32, ports=4, max_rows=65, max_experts=5, acc_bits=32, dim=100),
    # Rows of the array do not divide its columns: tiles begin at any granule. The last tile of 64 keys leaves the word.
    machine(64, 48, ports=4, max_rows=64, max_experts=4, acc_bits=24, dim=100),
]


@pytest.fixture(params=SIZES, ids=lambda size: f"{size.simd}x{size.pe}", scope="module")
def size(request: pytest.FixtureRequest) -> MachineSize:
    assert isinstance(request.param, MachineSize)
    return request.param


@pytest.fixture
def job(size: MachineSize) -> Job:
    return Job(size, np.random.default_rng(size.simd))


def activations(job: Job, rows: int, columns: int) -> Ints:
    return job.rng.integers(-128, 128, (rows, columns))


def dense(job: Job, outputs: int, inputs: int, weight_format: WeightFormat = WeightFormat.INT8) -> Dense:
    """A random layer whose outputs span int16, a few saturating."""
    reach = 1 << (PLANES[weight_format] - 1)
    weight = job.rng.integers(-reach, reach, (outputs, inputs))
    spread = inputs**0.5 * 43 * reach  # about the standard deviation of a sum
    bias = job.rng.integers(-int(spread), int(spread), outputs)
    scale = job.rng.uniform(0.5, 1.5, outputs) * 32768 / (3 * spread)
    rq = Requant.of_scale([float(s) for s in scale], INT16)
    return Dense(weight, bias, np.array(rq.multiplier), np.array(rq.shift), weight_format)


def narrowed(layer: Dense) -> Dense:
    """The same layer with outputs that span int8."""
    return replace(layer, shift=layer.shift + 8)


def expected(layer: Dense, x: Ints, out_type: IntType = INT16) -> Ints:
    rq = Requant(tuple(layer.multiplier.tolist()), tuple(layer.shift.tolist()), out_type)
    return f.requantize(f.matmul(x, layer.weight, layer.bias), rq)


def gelu(u: Ints, scale: Requant) -> Ints:
    return f.requantize(f.gelu_fixed(u), scale)


GELU_SCALE = Requant((40503,), (23,), INT8)


def linear(job: Job, layer: Dense, x: Slot, y: Slot, post: Post) -> None:
    address, blocks = job.add(layer.stream(job.size))
    scale = GELU_SCALE if post is Post.GELU else Requant((0,), (1,), INT8)
    job.emit(
        Instruction(
            Opcode.LINEAR,
            post=post,
            weight_format=layer.weight_format,
            rows=x.rows,
            k_words=layer.k_words(job.size),
            n_tiles=layer.n_tiles(job.size),
            src_base=x.base,
            src_stride=x.stride,
            dst_base=y.base,
            dst_stride=y.stride,
            mem_addr=address,
            blocks=blocks,
            multiplier=scale.multiplier[0],
            shift=scale.shift[0] if post is Post.GELU else 0,
        )
    )


def run(job: Job, csim: Csim, folder: Path) -> tuple[Ints, ...]:
    result = job.run(csim(job.size), folder)
    assert result.status == 0, result.stderr
    return result.tensors


def check(got: Ints, want: Ints) -> None:
    np.testing.assert_array_equal(got, want)
    assert len(np.unique(want)) > 1, "an expectation of one single value tests nothing"


@pytest.mark.parametrize("weight_format", WeightFormat)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 5, 14), (37, 70, 41), (64, 96, 96)])
def test_linear_with_every_post(
    job: Job, csim: Csim, tmp_path: Path, weight_format: WeightFormat, rows: int, inputs: int, outputs: int
) -> None:
    """Odd rows, columns that fill no word, strides with spare words, all four posts in one Program."""
    x = activations(job, rows, inputs)
    old = job.rng.integers(-(1 << 15), 1 << 15, (rows, outputs))
    layer = dense(job, outputs, inputs, weight_format)
    x_slot = job.load(Unit.ACT, x, Space.INPUT, spare=1)
    places = {post: job.slot(Unit.ACT, rows, outputs, spare=1) for post in (Post.INT8, Post.GELU)}
    places[Post.INT16] = job.slot(Unit.RES, rows, outputs, spare=2)
    places[Post.ADD] = job.load(Unit.RES, old)
    for post, place in places.items():
        linear(job, narrowed(layer) if post is Post.INT8 else layer, x_slot, place, post)
    for place in places.values():
        job.store(place)
    got = dict(zip(places, run(job, csim, tmp_path), strict=True))
    wide = expected(layer, x)
    check(got[Post.INT8], expected(narrowed(layer), x, INT8))
    check(got[Post.GELU], gelu(wide, GELU_SCALE))
    check(got[Post.INT16], wide)
    check(got[Post.ADD], f.saturate(old + wide, INT16))


def test_padding_of_a_result_is_zero_in_res(job: Job, csim: Csim, tmp_path: Path) -> None:
    """Lanes of padding outputs are 0, so a NORM may sum whole words."""
    layer = dense(job, job.size.pe + 1, 9)
    x = job.load(Unit.ACT, activations(job, 5, 9))
    y = job.slot(Unit.RES, 5, job.size.pe + 1)
    linear(job, layer, x, y, Post.INT16)
    job.store(replace(y, columns=2 * job.size.pe))
    (got,) = run(job, csim, tmp_path)
    assert got[:, : job.size.pe + 1].any()
    assert not got[:, job.size.pe + 1 :].any()


def test_linear_at_the_corners_of_int8(job: Job, csim: Csim, tmp_path: Path) -> None:
    """-128 times -128 in every lane: the array packs two products into one multiplier and may not spill."""
    inputs = 2 * job.size.simd
    x = job.rng.choice(np.array([-128, 127]), (9, inputs))
    x[0], x[1] = -128, 127
    weight = job.rng.choice(np.array([-128, 127]), (job.size.pe, inputs))
    weight[::2] = -128
    scale = Requant.of_scale([2.0**-6] * job.size.pe, INT16)
    layer = Dense(weight, np.zeros(job.size.pe, dtype=np.int64), np.array(scale.multiplier), np.array(scale.shift))
    x_slot, y = job.load(Unit.ACT, x), job.slot(Unit.RES, 9, job.size.pe)
    linear(job, layer, x_slot, y, Post.INT16)
    job.store(y)
    check(run(job, csim, tmp_path)[0], expected(layer, x))


def norm(job: Job, x: Slot, y: Slot, gain: Ints, bias: Ints, shift: int) -> None:
    tiles = ceil_div(len(gain), job.size.pe)
    stream = bytearray()
    for tile in range(tiles):
        part = slice(tile * job.size.pe, (tile + 1) * job.size.pe)
        stream += records(job.size.pe, bias[part], gain[part], np.zeros_like(gain[part]))
    address, blocks = job.add(bytes(stream))
    job.emit(
        Instruction(
            Opcode.NORM,
            rows=x.rows,
            dim=len(gain),
            n_tiles=tiles,
            src_base=x.base,
            src_stride=x.stride,
            dst_base=y.base,
            dst_stride=y.stride,
            shift=shift,
            mem_addr=address,
            blocks=blocks,
        )
    )


@pytest.mark.parametrize("dim", [5, 33, 100])
def test_norm(job: Job, csim: Csim, tmp_path: Path, dim: int) -> None:
    rows = 31
    x = job.rng.integers(-(1 << 15), 1 << 15, (rows, dim)) >> job.rng.integers(0, 15, (rows, 1))
    x[0], x[1] = 32767, 0
    x[2] = np.where(np.arange(dim) % 2, 32767, -32768)
    gain, bias = job.rng.integers(-(1 << 15), 1 << 15, dim), job.rng.integers(-(1 << 20), 1 << 20, dim)
    x_slot, y = job.load(Unit.RES, x, spare=1), job.slot(Unit.ACT, rows, dim, spare=1)
    norm(job, x_slot, y, gain, bias, 17)
    job.store(y)
    check(run(job, csim, tmp_path)[0], f.affine(f.normalise(x), gain, bias, 17))


def attention(job: Job, qkv: list[Slot], y: Slot, heads: int, score: Requant, out: Requant) -> None:
    q, k, v = qkv
    job.emit(
        Instruction(
            Opcode.ATTENTION,
            rows=q.rows,
            keys=k.rows,
            num_heads=heads,
            dim=q.columns // heads,
            src_base=q.base,
            src_stride=q.stride,
            aux_base=k.base,
            aux2_base=v.base,
            dst_base=y.base,
            dst_stride=y.stride,
            multiplier=score.multiplier[0],
            shift=score.shift[0],
            multiplier2=out.multiplier[0],
            shift2=out.shift[0],
        )
    )


SHAPES = [
    (1, 1, 1, 16),
    (2, 2, 3, 5),
    (37, 37, 3, 12),
    (20, 64, 2, 24),
    (33, 7, 1, 50),
    (64, 64, 4, 16),
    (9, 50, 3, 40),
]


@pytest.mark.parametrize(("rows", "keys", "heads", "dim"), SHAPES)
def test_attention(job: Job, csim: Csim, tmp_path: Path, rows: int, keys: int, heads: int, dim: int) -> None:
    """Heads that straddle words and granules, keys that fill no tile, more and fewer keys than queries; scores flat,
    sharp and saturated."""
    columns = heads * dim
    q, k, v = (activations(job, count, columns) for count in (rows, keys, keys))
    slots = [job.load(Unit.ACT, x, Space.INPUT) for x in (q, k, v)]
    out = Requant((49152,), (23,), INT8)
    scores = [Requant.of_scale(scale, INT16) for scale in (0.004, 0.05, 3.0)]
    ys = [job.load(Unit.ACT, np.full((rows, columns), 77)) for _ in scores]
    for score, y in zip(scores, ys, strict=True):
        attention(job, slots, y, heads, score, out)
    for y in ys:
        job.store(y)
    for got, score in zip(run(job, csim, tmp_path), scores, strict=True):
        parts = [slice(h * dim, (h + 1) * dim) for h in range(heads)]
        check(got, np.concatenate([f.attention_head(q[:, p], k[:, p], v[:, p], score, out) for p in parts], axis=1))


def test_attention_keeps_the_lanes_beside_its_heads(job: Job, csim: Csim, tmp_path: Path) -> None:
    rows, heads, dim = 5, 2, 9
    slots = [job.load(Unit.ACT, activations(job, rows, heads * dim)) for _ in range(3)]
    y = job.load(Unit.ACT, np.full((rows, 2 * job.size.simd), 77))
    attention(job, slots, y, heads, Requant.of_scale(0.01, INT16), Requant((49152,), (23,), INT8))
    job.store(y)
    (got,) = run(job, csim, tmp_path)
    assert (got[:, heads * dim :] == 77).all()
    assert (got[:, : heads * dim] != 77).any()


def test_output_is_read_back(job: Job, csim: Csim, tmp_path: Path) -> None:
    """What a STORE wrote, a LOAD of the same Program reads; a store in front leaves it at an odd line."""
    x, small = job.rng.integers(-(1 << 15), 1 << 15, (5, 70)), activations(job, 3, 5)
    act, res = job.load(Unit.ACT, small), job.load(Unit.RES, x)
    job.store(act)
    line = job.store(res)
    copy = job.slot(Unit.RES, 5, 70)
    job.output_lines += job.size.block_lines  # the last block of the LOAD reaches beyond the tensor
    job.fill(copy, Space.OUTPUT, line, fence=len(job.instructions))
    job.store(copy)
    for got, want in zip(run(job, csim, tmp_path), (small, x, x), strict=True):
        check(got, want)


def route(job: Job, layer: Dense, x: Slot, top_k: int) -> Slot:
    """Emits ROUTE; the returned slot is all queues, one row an expert."""
    address, blocks = job.add(layer.stream(job.size))
    experts = len(layer.weight)
    job.emit(
        Instruction(
            Opcode.ROUTE,
            rows=x.rows,
            k_words=layer.k_words(job.size),
            n_tiles=1,
            src_base=x.base,
            src_stride=x.stride,
            num_experts=experts,
            top_k=top_k,
            mem_addr=address,
            blocks=blocks,
        )
    )
    entries = job.size.max_rows + 1
    return Slot(Unit.QUEUE, 0, entries, experts, entries)


def gates_of(queues: Ints, rows: int) -> Ints:
    """Queues [E, max_rows + 1] as gates [rows, E]; tokens must ascend."""
    gates = np.zeros((rows, len(queues)), dtype=np.int64)
    for e, queue in enumerate(queues):
        entries = queue[1 : 1 + queue[0]]
        tokens = entries & 0xFFFF
        assert (np.diff(tokens) > 0).all()
        gates[tokens, e] = entries >> 16
    return gates


class Expert(NamedTuple):
    first: Dense
    second: Dense
    width: Width = Width.STORED

    def sliced(self, layer: Dense) -> Dense:
        """The layer as this expert's width gives it."""
        bits = 8 if self.width is Width.STORED else SLICE_BITS[self.width]
        return replace(layer, weight=f.slice_planes(layer.weight, bits))


def experts(job: Job, x: Slot, y: Slot, layers: list[Expert]) -> None:
    hidden = job.slot(Unit.ACT, job.size.max_rows, len(layers[0][0].weight))
    streams = [layer.first.stream(job.size) + layer.second.stream(job.size) for layer in layers]
    address, blocks = job.add(b"".join(streams))
    first, second, _ = layers[0]
    job.emit(
        Instruction(
            Opcode.EXPERTS,
            weight_format=first.weight_format,
            rows=x.rows,
            num_experts=len(layers),
            k_words=first.k_words(job.size),
            n_tiles=first.n_tiles(job.size),
            k_words2=second.k_words(job.size),
            n_tiles2=second.n_tiles(job.size),
            src_base=x.base,
            src_stride=x.stride,
            dst_base=y.base,
            dst_stride=y.stride,
            aux_base=hidden.base,
            aux_stride=hidden.stride,
            multiplier=GELU_SCALE.multiplier[0],
            shift=GELU_SCALE.shift[0],
            mem_addr=address,
            blocks=blocks // len(layers),
            ahead=len(layers) // 2,
            fence=len(job.instructions),
            widths=sum(layer.width << (WIDTH_BITS * e) for e, layer in enumerate(layers)),
        )
    )


def expected_experts(x: Ints, gates: Ints, residual: Ints, layers: list[Expert]) -> Ints:
    y = residual.copy()
    for e, layer in enumerate(layers):
        queue = np.nonzero(gates[:, e])[0]
        hidden = gelu(expected(layer.sliced(layer.first), x[queue]), GELU_SCALE)
        y[queue] = f.gated_add(y[queue], expected(layer.sliced(layer.second), hidden), gates[queue, e])
    return y


SLICES = (Width.SLICE2, Width.STORED, Width.SLICE4, Width.STORED)


@pytest.mark.parametrize(
    ("weight_format", "widths"), [*((w, (Width.STORED,) * 4) for w in WeightFormat), (WeightFormat.INT8, SLICES)]
)
@pytest.mark.parametrize("top_k", [1, 2])
def test_route_and_experts(
    job: Job, csim: Csim, tmp_path: Path, weight_format: WeightFormat, widths: tuple[Width, ...], top_k: int
) -> None:
    """Two layers of experts in one Program with different queues; expert 1 never has a token, and expert 0 is always
    empty in the second layer, so that the reader must skip the first stream."""
    rows, dim, hidden, count = 37, 40, 50, 4
    x = activations(job, rows, dim)
    residual = job.rng.integers(-(1 << 15), 1 << 15, (rows, dim))
    # A slice's plane of ones makes weights of padding, too, so lanes beyond the last column must then be 0.
    x_slot = job.load(Unit.ACT, x, garbage=widths != SLICES)
    y = job.load(Unit.RES, residual)
    want_gates: list[Ints] = []
    for layer in range(2):
        logits = dense(job, count, dim)
        logits = replace(logits, shift=logits.shift + 3)
        logits.bias[1 if layer == 0 else 0] = -(1 << 30)
        shapes = ((hidden, dim), (dim, hidden))
        layers = [Expert(*(dense(job, *shape, weight_format) for shape in shapes), width) for width in widths]
        queue = route(job, logits, x_slot, top_k)
        job.store(queue)
        experts(job, x_slot, y, layers)
        want_gates.append(f.gates(expected(logits, x), top_k))
        residual = expected_experts(x, want_gates[-1], residual, layers)
    job.store(y)
    *got_queues, got = run(job, csim, tmp_path)
    assert not want_gates[0][:, 1].any()
    assert not want_gates[1][:, 0].any()
    for entries, want in zip(got_queues, want_gates, strict=True):
        check(gates_of(entries, rows), want)
    check(got, residual)


def test_block_of_a_transformer(job: Job, csim: Csim, tmp_path: Path) -> None:
    """norm, q, k, v, attention, projection added to the residual, norm, GELU, and a 16-bit head, in one Program."""
    rows, dim, heads, hidden = 33, 48, 3, 70
    x = job.rng.integers(-3000, 3000, (rows, dim))
    gain, bias = job.rng.integers(2000, 8000, dim), job.rng.integers(-(1 << 14), 1 << 14, dim)
    qkv = [narrowed(dense(job, dim, dim)) for _ in range(3)]
    projection, up, down = dense(job, dim, dim), dense(job, hidden, dim), dense(job, dim, hidden)
    score, out = Requant.of_scale(0.02, INT16), Requant((49152,), (23,), INT8)
    res = job.load(Unit.RES, x)
    normed, mixed, *qkv_slots = (job.slot(Unit.ACT, rows, dim) for _ in range(5))
    hidden_slot, head = job.slot(Unit.ACT, rows, hidden), job.slot(Unit.RES, rows, dim)
    norm(job, res, normed, gain, bias, 17)
    for layer, slot in zip(qkv, qkv_slots, strict=True):
        linear(job, layer, normed, slot, Post.INT8)
    attention(job, qkv_slots, mixed, heads, score, out)
    linear(job, projection, mixed, res, Post.ADD)
    norm(job, res, normed, gain, bias, 17)
    linear(job, up, normed, hidden_slot, Post.GELU)
    linear(job, down, hidden_slot, head, Post.INT16)
    for slot in (mixed, res, head):
        job.store(slot)
    n = f.affine(f.normalise(x), gain, bias, 17)
    q, k, v = (expected(layer, n, INT8) for layer in qkv)
    parts = [slice(h * dim // heads, (h + 1) * dim // heads) for h in range(heads)]
    want_mixed = np.concatenate([f.attention_head(q[:, p], k[:, p], v[:, p], score, out) for p in parts], axis=1)
    want_res = f.saturate(x + expected(projection, want_mixed), INT16)
    n = f.affine(f.normalise(want_res), gain, bias, 17)
    want_head = expected(down, gelu(expected(up, n), GELU_SCALE))
    for got, want in zip(run(job, csim, tmp_path), (want_mixed, want_res, want_head), strict=True):
        check(got, want)


def test_illegal_instruction_stops_the_run(job: Job, csim: Csim, tmp_path: Path) -> None:
    """Here a word too many to store; every rule by itself: test_legal.py."""
    x = job.load(Unit.ACT, activations(job, 3, 5))
    job.store(x)
    too_far = Instruction(Opcode.STORE, space=Space.OUTPUT, unit=Unit.ACT, words=job.size.act_words + 1)
    job.instructions.append(too_far.encode())
    job.store(x)
    result = job.run(csim(job.size), tmp_path)
    assert result.status == 3
    problem = "run 0 must end with status OK, not ILLEGAL_INSTRUCTION at instruction 2"
    assert result.stderr == f"csim: {problem}; see docs/machine.md\n"


def test_program_longer_than_the_program_memory_is_refused(job: Job, csim: Csim, tmp_path: Path) -> None:
    legal = Instruction(Opcode.STORE, space=Space.OUTPUT, unit=Unit.QUEUE, words=4)
    job.instructions = [legal.encode()] * (job.size.max_instructions + 1)
    result = job.run(csim(job.size), tmp_path)
    assert result.status == 3
    assert "ILLEGAL_INSTRUCTION at instruction 0;" in result.stderr
    job.instructions.pop()
    assert job.run(csim(job.size), tmp_path).status == 0


def test_empty_program_refreshes_the_registers(job: Job, csim: Csim, tmp_path: Path) -> None:
    """The test bench itself compares magic, version and hash with the generated header."""
    assert ISA_VERSION > 0
    job.add(bytes(job.size.line_bytes))
    assert job.run(csim(job.size), tmp_path).status == 0
