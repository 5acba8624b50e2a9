# SPDX-License-Identifier: Apache-2.0
"""What the tests of the unified unit share: the machines they run on, random layers and heads as passes."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from unified_bench import Bench, Ints, Layer, Pass
from unit import Unit

from codesign.emit.params import PassKind, PassPost, RowSource
from codesign.reference import functions as f
from codesign.schedule.design import MachineSize
from codesign.schedule.stream import ceil_div
from codesign.spec.types import INT8, INT16, IntType, Requant

Work = list[tuple[Pass, Layer | None]]
"""Passes, with the layer of each dense one."""

UNIT = Unit(
    "tb_unified_unit",
    (
        "sdp_ram", "tdp_ram", "act_memory", "res_memory", "delay_line", "adder_tree", "carry_tree", "max_tree",
        "mac_cell", "mac_chain", "mac_row_pair", "mac_array", "round_shift", "requantizer", "gelu_lane", "post_lane",
        "prob_lane", "leading_byte", "reciprocal", "weight_row", "weight_tile", "weight_loader", "record_bank",
        "score_memory", "pass_table", "pass_walk", "pass_control", "slot_issuer", "slot_stages", "accumulator",
        "row_sum", "head_scores", "post_processor", "result_writer", "row_tracker", "unified_unit",
    ),
)  # fmt: skip


def _machine(simd: int, pe: int, max_rows: int, key_words: int, max_experts: int, acc_bits: int) -> MachineSize:
    return MachineSize(
        simd=simd, pe=pe, ports=1, act_words=1024, res_words=512, max_rows=max_rows, key_words=key_words,
        max_experts=max_experts, acc_bits=acc_bits, norm_dim_max=pe, max_instructions=64, fifo_blocks=32,
    )  # fmt: skip


SIZES = {
    "unified16x16": _machine(16, 16, max_rows=40, key_words=3, max_experts=8, acc_bits=40),
    "unified32x16": _machine(32, 16, max_rows=33, key_words=2, max_experts=1, acc_bits=33),
    "unified64x48": _machine(64, 48, max_rows=70, key_words=2, max_experts=5, acc_bits=27),
}
"""One, two and four granules a word; one and three granules a tile; one, two and four blocks of records."""


async def bench_of(dut: Any, seed: int, stall_percent: int = 30) -> Bench:
    bench = Bench(dut, SIZES[os.environ["CODESIGN_MACHINE"]], seed, stall_percent)
    await bench.start()
    return bench


def scales(rng: np.random.Generator, channels: int, largest: int, out_type: IntType, spread: float = 1.0) -> Requant:
    """Scales that bring accumulators of magnitude up to `largest` to about `spread` times the range of the type."""
    scale = spread * out_type.max / max(largest, 1)
    return Requant.of_scale([float(scale * rng.uniform(0.3, 1.7)) for _ in range(channels)], out_type)


def layer_for(bench: Bench, x: Ints, outputs: int, out_type: IntType = INT8, planes: int = 8, *, sliced: bool = False,
              spread: float = 1.0, extreme: bool = False) -> Layer:  # fmt: skip
    """A random layer whose results use the range of the type."""
    rng = bench.rng
    bits = 8 if sliced else planes
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    shape = (outputs, x.shape[1])
    weight = rng.integers(low, high + 1, shape)
    bias = rng.integers(-3000, 3000, outputs)
    if extreme:
        weight = rng.choice([low, high], shape)
        weight[0] = low
        weight[-1] = low
        reach = 1 << (31 if bench.size.acc_bits > 32 else bench.size.acc_bits - 3)
        bias = rng.choice([-reach, reach - 1, 0], outputs)
    layer = Layer(weight, bias, Requant.of_scale([1.0] * outputs, out_type), planes, sliced)
    acc = f.matmul(x, layer.effective, bias)
    return replace(layer, rq=scales(rng, outputs, int(np.abs(acc).max()) // (3 if extreme else 1), out_type, spread))


def dense_pass(bench: Bench, layer: Layer, rows: int, src: tuple[int, int], dst: tuple[int, int], post: PassPost,
               **more: int) -> tuple[Pass, Layer]:  # fmt: skip
    """The pass of a layer; src and dst are (base, stride)."""
    size = bench.size
    outputs, inputs = layer.weight.shape
    command = Pass(
        post=post, planes=layer.blocks_a_tile, align=layer.align, rows=rows, k_words=ceil_div(inputs, size.simd),
        n_tiles=ceil_div(outputs, size.pe), src_base=src[0], src_stride=src[1], dst_base=dst[0], dst_stride=dst[1],
    )  # fmt: skip
    return replace(command, **more), layer


async def dense(bench: Bench, rows: int, inputs: int, outputs: int, *, planes: int = 8, sliced: bool = False,
                extreme: bool = False, stride: int = 0) -> int:  # fmt: skip
    """One LINEAR with int8 result; returns its cycles."""
    size, m = bench.size, bench.memories
    stride = stride or ceil_div(inputs, size.simd)
    width = ceil_div(outputs, size.pe) * size.pe
    if extreme:
        x = bench.rng.choice([-128, 127], (rows, inputs))
        x[0] = x[-1] = -128
        m.put_act(3, stride, x)
        await bench.load()
    x = m.get_act(3, stride, rows, inputs)
    layer = layer_for(bench, x, outputs, planes=planes, sliced=sliced, extreme=extreme)
    work = dense_pass(bench, layer, rows, (3, stride), (500, ceil_div(width, size.simd)), PassPost.INT8)
    return await bench.check([work])


def head_passes(bench: Bench, rows: int, keys: int, column: int, dim: int, stride: int,
                bases: tuple[int, int, int, int], score: Requant, out: Requant, last: bool) -> Work:  # fmt: skip
    """The two passes of a head; bases of q, k, v and the result."""
    size = bench.size
    head = {"rows": rows, "keys": keys, "column": column, "dim": dim, "src_stride": stride, "src_base": bases[0]}
    scores = Pass(
        kind=PassKind.SCORE, post=PassPost.SCORE, last=0, n_tiles=ceil_div(keys, size.pe), kv_base=bases[1],
        multiplier=score.multiplier[0], shift=score.shift[0], **head,
    )  # fmt: skip
    mix = Pass(
        kind=PassKind.MIX, post=PassPost.MIX, source=RowSource.PASS, last=int(last),
        k_words=ceil_div(keys, size.simd), kv_base=bases[2], dst_base=bases[3], dst_stride=stride,
        multiplier=out.multiplier[0], shift=out.shift[0], **head,
    )  # fmt: skip
    return [(scores, None), (mix, None)]


def attention(bench: Bench, rows: int, keys: int, heads: int, dim: int, score_scale: float) -> Work:
    """The passes of an ATTENTION whose q, k, v lie in ACT from word 2 on."""
    size, m = bench.size, bench.memories
    columns = heads * dim
    stride = ceil_div(columns, size.simd)
    bases = (2, 2 + rows * stride, 5 + (rows + keys) * stride, 8 + (rows + 2 * keys) * stride)
    assert bases[3] + rows * stride < size.act_words, "the test needs more ACT"
    if rows % 2:  # every score negative: a lane without a key must not win the maximum with 0
        q, k = m.get_act(bases[0], stride, rows, columns), m.get_act(bases[1], stride, keys, columns)
        m.put_act(bases[0], stride, np.abs(q) // 2 + 1)
        m.put_act(bases[1], stride, np.maximum(-np.abs(k), -127))
    score = Requant.of_scale(score_scale, INT16)
    out = Requant.of_scale(float(bench.rng.uniform(0.003, 0.02)), INT8)
    passes = []
    for h in range(heads):
        passes += head_passes(bench, rows, keys, h * dim, dim, stride, bases, score, out, h == heads - 1)
    return passes
