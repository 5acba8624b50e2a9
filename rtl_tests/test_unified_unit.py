# SPDX-License-Identifier: Apache-2.0
"""The unified compute unit against `codesign.reference.functions`, bit for bit: pytest builds, cocotb runs inside."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge
from unified_bench import Bench, Ints, Layer, Pass
from unit import Unit, run

from codesign.emit.params import PassKind, PassPost, RowSource
from codesign.reference import functions as f
from codesign.schedule.design import MachineSize
from codesign.schedule.stream import ceil_div
from codesign.spec.types import INT8, INT16, IntType, Requant

UNIT = Unit(
    "tb_unified_unit",
    (
        "sdp_ram", "tdp_ram", "act_memory", "res_memory", "delay_line", "adder_tree", "carry_tree", "max_tree", "mac_cell",
        "mac_chain", "mac_row_pair", "mac_array", "round_shift", "requantizer", "gelu_lane", "post_lane", "prob_lane",
        "reciprocal", "weight_tile", "weight_loader", "record_bank", "score_memory", "pass_table", "pass_control",
        "slot_issuer", "unified_unit",
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


ROUNDS = int(os.environ.get("CODESIGN_UNIFIED_ROUNDS", "4"))
"""Random programs a size; more for a soak."""


@pytest.mark.parametrize("name", SIZES)
def test_unified_unit(name: str) -> None:
    run(UNIT, name, "test_unified_unit", SIZES[name])


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


@cocotb.test()
async def dense_int8(dut: Any) -> None:
    bench = await bench_of(dut, 1)
    for rows, inputs, outputs in ((7, 16, 8), (1, 40, 20), (13, 100, 50), (33, 48, 33), (2, 5, 3)):
        await dense(bench, rows, inputs, outputs)
    bench.stalls(0)
    most = bench.size.max_rows
    await dense(bench, most, 96, 24)
    await dense(bench, min(most - 1, 60), 17, 70, stride=8)


@cocotb.test()
async def dense_formats_slices_and_extremes(dut: Any) -> None:
    bench = await bench_of(dut, 2)
    for planes in (8, 4, 2):
        await dense(bench, 11, 70, 40, planes=planes)
        await dense(bench, 1, 16, 90, planes=planes)
        await dense(bench, 9, 100, 30, planes=planes, extreme=True)
    for planes in (4, 2):
        await dense(bench, 10, 70, 40, planes=planes, sliced=True)
        await dense(bench, 3, 40, 60, planes=planes, sliced=True, extreme=True)
    bench.stalls(0)
    await dense(bench, 2, 100, 90, planes=2)
    await dense(bench, 12, 100, 90, planes=2, sliced=True)


@cocotb.test()
async def every_product_extreme(dut: Any) -> None:
    """-128 x -128 in every cell: eight of them are one more than a field of the cascade holds. The rest: 127 x -128, 127 x 127."""
    bench = await bench_of(dut, 3, 0)
    size, m = bench.size, bench.memories
    rows, inputs, outputs = 4, 4 * size.simd, size.pe
    x = np.full((rows, inputs), -128)
    x[1] = 127
    x[2, : inputs // 2] = 127
    m.put_act(0, 4, x)
    await bench.load()
    for low, high in ((-128, -128), (127, 127), (-128, 127), (127, -128)):
        weight = np.full((outputs, inputs), low)
        weight[1::2] = high
        layer = Layer(weight, np.zeros(outputs, dtype=np.int64), Requant.of_scale([2.0**-9] * outputs, INT16))
        await bench.check([dense_pass(bench, layer, rows, (0, 4), (9, 1), PassPost.INT16)])


@cocotb.test()
async def dense_to_int16_add_gelu_and_logits(dut: Any) -> None:
    bench = await bench_of(dut, 4)
    size = bench.size
    for rows, inputs, outputs, post, spread in (
        (7, 20, 35, PassPost.INT16, 1.5),
        (1, 16, 8, PassPost.ADD, 1.0),
        (21, 60, 30, PassPost.ADD, 1.5),
        (19, 30, 50, PassPost.GELU, 0.15),
        (5, 70, 20, PassPost.GELU, 1.5),
        (33, 16, 50, PassPost.GELU, 0.01),
        (size.max_rows, 40, size.pe, PassPost.LOGITS, 1.2),
        (3, 100, 9, PassPost.LOGITS, 0.3),
    ):
        src = (5, ceil_div(inputs, size.simd))
        layer = layer_for(bench, bench.memories.get_act(*src, rows, inputs), outputs, INT16, spread=spread)
        out = Requant.of_scale(0.02 if spread > 1 else 0.08, INT8)
        width = ceil_div(outputs, size.pe) * size.pe
        dst = (500, ceil_div(width, size.simd)) if post == PassPost.GELU else (9, ceil_div(outputs, size.pe))
        work = dense_pass(bench, layer, rows, src, dst, post, multiplier=out.multiplier[0], shift=out.shift[0])
        await bench.check([work])
        if post == PassPost.LOGITS:
            np.testing.assert_array_equal(await bench.read_logits(rows), bench.memories.logits)


def head_passes(bench: Bench, rows: int, keys: int, column: int, dim: int, stride: int, bases: tuple[int, int, int, int],
                score: Requant, out: Requant, last: bool) -> list[tuple[Pass, Layer | None]]:  # fmt: skip
    """The two passes of a head; bases of q, k, v and the result."""
    size = bench.size
    head = {"rows": rows, "keys": keys, "column": column, "dim": dim, "src_stride": stride, "src_base": bases[0]}
    scores = Pass(
        kind=PassKind.SCORE, post=PassPost.SCORE, last=0, n_tiles=ceil_div(keys, size.pe), kv_base=bases[1],
        multiplier=score.multiplier[0], shift=score.shift[0], **head,
    )  # fmt: skip
    mix = Pass(
        kind=PassKind.MIX, post=PassPost.MIX, source=RowSource.PASS, last=int(last), k_words=ceil_div(keys, size.simd),
        kv_base=bases[2], dst_base=bases[3], dst_stride=stride, multiplier=out.multiplier[0], shift=out.shift[0], **head,
    )  # fmt: skip
    return [(scores, None), (mix, None)]


def attention(bench: Bench, rows: int, keys: int, heads: int, dim: int, score_scale: float) -> list[tuple[Pass, Layer | None]]:
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


@cocotb.test()
async def attention_heads(dut: Any) -> None:
    bench = await bench_of(dut, 5)
    most, key_room = bench.size.max_rows, bench.size.key_words * bench.size.simd
    for rows, keys, heads, dim, scale in (
        (5, 5, 1, 16, 0.01),
        (1, 1, 2, 7, 0.02),
        (17, 17, 3, 20, 0.02),
        (most, min(most, key_room), 2, 24, 0.001),
        (most - 3, 6, 1, 70, 1.0),
        (3, key_room, 2, 48, 0.004),
        (33, 31, 5, 11, 1e-6),
        (8, bench.size.simd, 1, 64, 0.003),
        (2, bench.size.pe + 1, 3, 64, 0.003),
        (9, key_room - 1, 1, 5, 0.05),
    ):
        bench.stalls(0 if rows % 2 else 40)
        work = attention(bench, rows, keys, heads, dim, scale)
        await bench.load()
        await bench.check(work)


@cocotb.test()
async def attention_extremes(dut: Any) -> None:
    """All q, k, v at the ends of int8; all scores equal, or saturated at either end."""
    bench = await bench_of(dut, 6, 20)
    m, size = bench.memories, bench.size
    rows, keys, stride = 10, size.simd + 3, 1
    bases = (0, 20, 120, 220)
    out = Requant.of_scale(0.9, INT8)
    for q, k, v, scale in ((-128, -128, -128, 1.0), (-128, 127, 127, 1.0), (127, 127, -128, 1e-9), (-128, -128, 127, 0.01)):
        m.put_act(bases[0], stride, np.full((rows, size.simd), q))
        m.put_act(bases[1], stride, np.full((keys, size.simd), k))
        m.put_act(bases[2], stride, np.full((keys, size.simd), v))
        await bench.load()
        await bench.check(head_passes(bench, rows, keys, 0, 16, stride, bases, Requant.of_scale(scale, INT16), out, True))


@cocotb.test()
async def chained_layers(dut: Any) -> None:
    """Row r of a layer is read as soon as the layer before has landed it; few rows wait, many rows flow."""
    bench = await bench_of(dut, 7)
    size, m = bench.size, bench.memories
    for count, rows in enumerate((1, 2, 3, 5, 8, 9, 13, 32, size.max_rows)):
        bench.stalls(0 if count % 2 else 30)
        columns, depth = size.simd + 5, 4
        stride = ceil_div(ceil_div(columns, size.pe) * size.pe, size.simd)
        work, x, base = [], m.get_act(0, stride, rows, columns), 0
        for i in range(depth):
            layer = layer_for(bench, x, columns, planes=(8, 4, 2)[i % 3], spread=3.0)
            source = RowSource.PASS if i else RowSource.READY
            target = (base + rows * stride) if i < depth - 1 else 700
            work.append(dense_pass(bench, layer, rows, (base, stride), (target, stride), PassPost.INT8, source=source))
            x, base = f.requantize(f.matmul(x, layer.effective, layer.bias), replace(layer.rq, out_type=INT8)), target
        await bench.check(work)


@cocotb.test()
async def attention_then_projection(dut: Any) -> None:
    """A layer chained to the last head, weights of which arrive while the heads compute; blocks dropped in between."""
    bench = await bench_of(dut, 8, 20)
    size = bench.size
    for rows, keys in ((size.max_rows, size.max_rows), (4, 7), (20, 33)):
        keys = min(keys, size.key_words * size.simd)
        heads, dim = 2, 13
        work = attention(bench, rows, keys, heads, dim, 0.01)
        await bench.load()
        mix = work[-1][0]
        x = bench.memories.get_act(mix.dst_base, mix.dst_stride, rows, heads * dim)
        layer = layer_for(bench, x, size.pe + 3, INT16)
        work.append((Pass(kind=PassKind.DROP, blocks=5, last=0), None))
        work.append((Pass(kind=PassKind.DROP, blocks=1, last=1), None))
        work.append(
            dense_pass(bench, layer, rows, (mix.dst_base, mix.dst_stride), (3, 2), PassPost.ADD, source=RowSource.PASS)
        )
        filler = {len(work) - 3: [bench.random.getrandbits(64) for _ in range(5)], len(work) - 2: [1]}
        await bench.check(work, filler)


@cocotb.test()
async def experts_through_the_queue(dut: Any) -> None:
    """Two layers over a queue: x by token, hidden rows 0.., the result times the gate into the token's row."""
    bench = await bench_of(dut, 9)
    size, m, rng = bench.size, bench.memories, bench.rng
    dim, hidden = size.simd + 8, size.pe + 9
    tokens = min(size.max_rows, 60)
    src, aux = (7, ceil_div(dim, size.simd)), (600, ceil_div(ceil_div(hidden, size.pe) * size.pe, size.simd))
    dst = (4, ceil_div(dim, size.pe))
    work: list[tuple[Pass, Layer | None]] = []
    filler = {}
    counts = [(0, 1), (size.max_experts - 1, tokens), (size.max_experts // 2, 11)][: size.max_experts]
    for expert, count in counts:
        chosen = np.sort(rng.choice(tokens, count, replace=False))
        gate = rng.choice([1, 32768, int(rng.integers(1, 32769))], count)
        entry = expert * (size.max_rows + 1)
        m.queue[entry] = count
        m.queue[entry + 1 : entry + 1 + count] = chosen | gate << 16
        planes, sliced = ((8, False), (2, False), (4, True))[expert % 3]
        x = m.get_act(*src, tokens, dim)[chosen]
        first = layer_for(bench, x, hidden, INT16, planes, sliced=sliced, spread=0.1)
        out = Requant.of_scale(0.04, INT8)
        h = f.requantize(f.gelu_fixed(f.requantize(f.matmul(x, first.effective, first.bias), first.rq)), out)
        second = layer_for(bench, h, dim, INT16, planes, sliced=sliced, spread=1.5)
        queue = {"queued": 1, "queue_base": entry + 1}
        work.append(dense_pass(bench, first, count, src, aux, PassPost.GELU, last=0, multiplier=out.multiplier[0],
                               shift=out.shift[0], **queue))  # fmt: skip
        work.append(dense_pass(bench, second, count, aux, dst, PassPost.GATED, last=0, source=RowSource.PASS, **queue))
        filler[len(work)] = [7] * 20
        work.append((Pass(kind=PassKind.DROP, blocks=20, last=0), None))
    work[-1] = (replace(work[-1][0], last=1), None)
    await bench.load()
    await bench.check(work, {i: blocks for i, blocks in filler.items() if i < len(work)})
    assert int(dut.block_dones_o.value) == 1


@cocotb.test()
async def rows_of_the_norm_unit(dut: Any) -> None:
    """Rows arrive while the pass waits for them; what stood there before must not be read."""
    bench = await bench_of(dut, 10, 0)
    size, m = bench.size, bench.memories
    for rows in (1, 6, 25):
        inputs = 2 * size.simd
        fresh = bench.rng.integers(-128, 128, (rows, inputs))
        layer = layer_for(bench, fresh, size.pe + 2, INT16)
        work = dense_pass(bench, layer, rows, (40, 2), (0, 2), PassPost.INT16, source=RowSource.NORM)
        await bench.put_blocks(layer.stream(size))
        bench.blocks_expected += len(layer.stream(size))
        assert not dut.norm_wait_o.value
        await bench.send(work[0])
        for r in range(rows):
            for _ in range(bench.random.choice((0, 0, 3, 40))):
                await FallingEdge(dut.clk_i)
            assert dut.norm_wait_o.value and not dut.rows_o.value
            m.put_act(40 + 2 * r, 2, fresh[r : r + 1])
            await bench.write(0, 40 + 2 * r, bench.act_words(40 + 2 * r, 2))
            dut.norm_rows_i.value = r + 1
        await bench.finish()
        m.apply(*work)
        await bench.compare()
        dut.norm_rows_i.value = 0


@cocotb.test()
async def rows_land_before_they_are_reported(dut: Any) -> None:
    """As soon as `rows_o` counts a row of a `last` pass, RES holds it; `rows_o` is 0 again after `done_o`."""
    bench = await bench_of(dut, 11, 10)
    size, m = bench.size, bench.memories
    rows, inputs, outputs = min(size.max_rows, 30), size.simd + 1, 2 * size.pe
    layers = [layer_for(bench, m.get_act(1, 2, rows, inputs), outputs, INT16) for _ in range(3)]
    work = [dense_pass(bench, layer, rows, (1, 2), (100 * i, 2), PassPost.ADD, last=i) for i, layer in enumerate(layers[:2])]
    for command, layer in work:
        await bench.put_blocks(layer.stream(size))
        bench.blocks_expected += len(layer.stream(size))
        m.apply(command, layer)
    for command, _ in work:
        await bench.send(command)
    seen = 0
    while not dut.dones_o.value:
        count = int(dut.rows_o.value)
        assert seen <= count <= rows or dut.dones_o.value
        if count > seen:
            seen = count
            words = await bench.read(1, 100 + 2 * (count - 1), 2)
            want = m.res[(100 + 2 * (count - 1)) * size.pe :][: 2 * size.pe]
            np.testing.assert_array_equal(bench.res_lanes(words), want)
        else:
            await FallingEdge(dut.clk_i)
    await bench.finish()
    assert seen > rows - 5  # reading takes a few cycles
    assert int(dut.rows_o.value) == 0
    await bench.compare()


@cocotb.test()
async def nothing_is_lost_between_tiles_and_passes(dut: Any) -> None:
    """Tiles of 8 planes and 9 rows or more: passes one after the other take their slots, and the same few cycles once."""
    bench = await bench_of(dut, 12, 0)
    size = bench.size
    least = max(9, 8 + size.record_blocks)  # a block a cycle: a tile with records takes that long
    overheads = set()
    for rows, k_words, n_tiles, passes in ((least, 1, 1, 1), (least, 1, 2, 4), (least, 3, 2, 3), (size.max_rows, 2, 3, 2)):
        x = bench.memories.get_act(0, 3, rows, k_words * size.simd)
        layers = [layer_for(bench, x, n_tiles * size.pe) for _ in range(passes)]
        dst = (500, ceil_div(n_tiles * size.pe, size.simd))
        work = [dense_pass(bench, layer, rows, (0, 3), dst, PassPost.INT8) for layer in layers]
        overheads.add(await bench.check(work) - rows * k_words * n_tiles * passes)
    cocotb.log.info("cycles beside slots: %s", overheads)
    assert len(overheads) == 1 and overheads.pop() < 80


@cocotb.test()
async def few_rows_take_eight_slots(dut: Any) -> None:
    """Tiles of 1 to 8 rows take 8 slots, one with records as many as its blocks, and no more."""
    bench = await bench_of(dut, 13, 0)
    size = bench.size
    overheads = set()
    for rows in (1, 4, 8):
        for k_words, n_tiles in ((3, 1), (2, 4), (3, 3)):
            layer = layer_for(bench, bench.memories.get_act(0, 3, rows, k_words * size.simd), n_tiles * size.pe)
            work = dense_pass(bench, layer, rows, (0, 3), (500, 4), PassPost.INT8)
            slots = n_tiles * k_words * 8 + (n_tiles - 1) * size.record_blocks
            overheads.add(await bench.check([work]) - slots)
    cocotb.log.info("cycles beside slots: %s", overheads)
    assert len(overheads) == 1


@cocotb.test()
async def heads_keep_the_array_busy(dut: Any) -> None:
    """K and V load while the tile before computes; only the last rows of a head's scores are waited for."""
    bench = await bench_of(dut, 14, 0)
    size = bench.size
    rows = size.max_rows
    keys, heads, dim = min(rows, size.key_words * size.simd), 2, 32
    work = attention(bench, rows, keys, heads, dim, 0.01)
    await bench.load()
    cycles = await bench.check(work)
    tiles = ceil_div(keys, size.pe) * ceil_div(dim, size.simd) + ceil_div(dim, size.pe) * ceil_div(keys, size.simd)
    slots = heads * tiles * max(rows, size.simd + 8)
    cocotb.log.info("%d cycles, %d slots", cycles, slots)
    assert cycles < slots + heads * 60 + 100


@cocotb.test()
async def reset_in_the_middle(dut: Any) -> None:
    """Whatever the unit is doing when it is reset, it starts afresh."""
    bench = await bench_of(dut, 15, 10)
    size = bench.size
    rows = min(size.max_rows, 30)
    for cycles in (5, 17, 30, 61, 90, 111, 160):
        work = attention(bench, rows, rows, 1, 16, 0.01)
        layer = layer_for(bench, bench.memories.get_act(2, 2, rows, size.simd), 2 * size.pe)
        dense_work = dense_pass(bench, layer, rows, (2, 2), (700, 4), PassPost.INT8)
        both = [dense_work, *work] if cycles % 2 else [*work, dense_work]
        await bench.load()
        await bench.put_blocks(layer.stream(size))
        sender = cocotb.start_soon(bench.send_all([command for command, _ in both]))
        for _ in range(cycles):
            await FallingEdge(dut.clk_i)
        sender.cancel()
        dut.pass_valid_i.value = 0
        await bench.reset()
        assert not dut.state_o.value and not dut.norm_wait_o.value
        await bench.load()
        await bench.check(both)


class Mixer:
    """Random passes that obey the protocol: rows are read when they are final, or from the pass before as they land."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.work: list[tuple[Pass, Layer | None]] = []
        self.filler: dict[int, list[int]] = {}
        self.free = 300  # ACT words below are inputs that nobody writes
        self.result: tuple[int, int, int] | None = None  # base, stride, rows of what the pass before left in ACT

    def take(self, words: int) -> int | None:
        """The base of fresh ACT words."""
        base = self.free
        if base + words + 1 >= self.bench.size.act_words:
            return None
        self.free += words
        return base

    def add_dense(self, queue_entry: int) -> bool:
        """A layer over static rows, over those of the pass before, or both layers of an expert."""
        bench, size, r = self.bench, self.bench.size, self.bench.random
        k_words, n_tiles = r.randint(1, 3), r.randint(1, 3)
        rows = r.choice((1, 2, r.randint(1, 12), r.randint(1, size.max_rows)))
        planes = r.choice((8, 4, 2))
        sliced = planes < 8 and r.random() < 0.4
        post = r.choice((PassPost.INT8, PassPost.GELU, PassPost.INT16, PassPost.ADD, PassPost.ADD))
        src, source, more = (r.randint(0, 20), r.randint(k_words, 4)), RowSource.READY, {}
        if self.result is not None and r.random() < 0.6:
            base, stride, rows = self.result
            k_words, src, source = r.randint(1, stride), (base, stride), RowSource.PASS
        elif r.random() < 0.3:
            rows = min(rows, queue_entry and size.max_rows)
            more = {"queued": 1, "queue_base": 1}
            post = PassPost.GATED if r.random() < 0.4 else PassPost.GELU
        layer = layer_for(bench, bench.rng.integers(-128, 128, (4, k_words * size.simd)), n_tiles * size.pe, INT16, planes,
                          sliced=sliced, spread=r.choice((0.02, 0.3, 1.5)))  # fmt: skip
        out = Requant.of_scale(r.uniform(0.01, 0.2), INT8)
        words = ceil_div(n_tiles * size.pe, size.simd) + r.randint(0, 1)
        to_act = post in (PassPost.INT8, PassPost.GELU)
        base = self.take(rows * words) if to_act else r.randint(0, 3)
        if base is None:
            return False
        self.work.append(
            dense_pass(bench, layer, rows, src, (base, words if to_act else n_tiles + r.randint(0, 1)), post, source=source,
                       last=r.randint(0, 1), multiplier=out.multiplier[0], shift=out.shift[0], **more)
        )  # fmt: skip
        self.result = (base, words, rows) if to_act and words * size.simd == n_tiles * size.pe else None
        return True

    def add_heads(self) -> bool:
        """One head over static rows."""
        bench, size, r = self.bench, self.bench.size, self.bench.random
        rows, keys = r.choice((1, 5, r.randint(1, size.max_rows))), r.randint(1, size.key_words * size.simd)
        dim, column = r.randint(1, 70), r.randint(0, 2 * size.simd)
        stride = ceil_div(column + dim, size.simd)
        keys = min(keys, 290 // stride)
        rows = min(rows, 290 // stride)
        base = self.take(rows * stride)
        if base is None:
            return False
        bases = (r.randint(0, 9), r.randint(0, 9), r.randint(0, 9), base)
        score, out = Requant.of_scale(r.choice((0.001, 0.02, 1.0)), INT16), Requant.of_scale(0.01, INT8)
        self.work += head_passes(bench, rows, keys, column, dim, stride, bases, score, out, bool(r.randint(0, 1)))
        self.result = None
        return True

    def add_drop(self) -> bool:
        """Blocks that nobody wants."""
        blocks = self.bench.random.randint(1, 30)
        self.filler[len(self.work)] = [self.bench.random.getrandbits(64) for _ in range(blocks)]
        self.work.append((Pass(kind=PassKind.DROP, blocks=blocks, last=self.bench.random.randint(0, 1)), None))
        self.result = None
        return True


@cocotb.test()
async def random_passes(dut: Any) -> None:
    bench = await bench_of(dut, 16)
    size, m, r = bench.size, bench.memories, bench.random
    for _ in range(ROUNDS):
        tokens = np.sort(bench.rng.choice(size.max_rows, size.max_rows, replace=False))
        m.queue[1 : 1 + size.max_rows] = tokens | bench.rng.integers(0, 32769, size.max_rows) << 16
        await bench.load()
        bench.stalls(r.choice((0, 0, 20, 60)))
        mixer = Mixer(bench)
        for _ in range(r.randint(4, 14)):
            add = r.choice((mixer.add_dense, mixer.add_dense, mixer.add_dense, mixer.add_heads, mixer.add_drop))
            if not (add(1) if add == mixer.add_dense else add()):
                break
        await bench.check(mixer.work, mixer.filler)
