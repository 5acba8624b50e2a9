# SPDX-License-Identifier: Apache-2.0
"""The unified compute unit against `codesign.reference.functions`, bit for bit: pytest builds, cocotb runs inside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge
from unified_bench import Layer, Pass
from unified_passes import SIZES, UNIT, Work, attention, bench_of, dense, dense_pass, head_passes, layer_for
from unit import run

from codesign.emit.params import PassKind, PassPost, RowSource
from codesign.reference import functions as f
from codesign.schedule.stream import ceil_div
from codesign.spec.types import INT8, INT16, Requant


@pytest.mark.parametrize("name", SIZES)
def test_unified_unit(name: str) -> None:
    run(UNIT, name, "test_unified_unit", SIZES[name])


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
    await dense(bench, 1, 16, 14 * bench.size.pe, planes=2)  # records run far ahead of the post-processor


@cocotb.test()
async def every_product_extreme(dut: Any) -> None:
    """-128 x -128 in every cell: eight of them are one more than a field of the cascade holds."""
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
    for q, k, v, scale in (
        (-128, -128, -128, 1.0),
        (-128, 127, 127, 1.0),
        (127, 127, -128, 1e-9),
        (-128, -128, 127, 0.01),
    ):
        m.put_act(bases[0], stride, np.full((rows, size.simd), q))
        m.put_act(bases[1], stride, np.full((keys, size.simd), k))
        m.put_act(bases[2], stride, np.full((keys, size.simd), v))
        await bench.load()
        await bench.check(
            head_passes(bench, rows, keys, 0, 16, stride, bases, Requant.of_scale(scale, INT16), out, True)
        )


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
    work: Work = []
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
            assert dut.norm_wait_o.value
            assert not dut.rows_o.value
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
    work = [
        dense_pass(bench, layer, rows, (1, 2), (100 * i, 2), PassPost.ADD, last=i) for i, layer in enumerate(layers[:2])
    ]
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
