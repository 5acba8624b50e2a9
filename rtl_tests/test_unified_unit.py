# SPDX-License-Identifier: Apache-2.0
"""The unified compute unit against `codesign.reference.functions`, bit for bit: pytest builds, cocotb runs inside."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
import pytest
from harness import QUEUE, SIZES, Bench, Pass, ceil_div, dense_stream, random_requant, run

from codesign.emit.params import PassKind, PassPost
from codesign.reference import functions as f
from codesign.spec.types import INT8, INT16, Requant


@pytest.mark.parametrize("name", SIZES)
def test_unified_unit(name: str) -> None:
    run(name, "test_unified_unit")


async def dense(
    bench: Bench,
    rows: int,
    inputs: int,
    outputs: int,
    *,
    ternary: bool = False,
    extreme: bool = False,
    stride: int | None = None,
) -> int:
    """One LINEAR with int8 result; returns its cycles."""
    size, rng = bench.size, bench.rng
    low, high = (-1, 2) if ternary else (-128, 128)
    x = rng.integers(-128, 128, (rows, inputs))
    weight = rng.integers(low, high, (outputs, inputs))
    bias = rng.integers(-3000, 3000, outputs)
    if extreme:
        x = rng.choice([-128, 127], (rows, inputs))
        weight = rng.choice([low, high - 1], (outputs, inputs))
        x[0], weight[0], x[-1], weight[-1] = -128, low, -128, low
        bias = rng.choice([-(1 << 31), (1 << 31) - 1, 0], outputs)
    acc = f.matmul(x, weight, bias)
    rq = random_requant(rng, outputs, int(np.abs(acc).max()) // 3, INT8)
    base, out = 3, 500
    stride = await bench.write_act(base, x, stride)
    words = ceil_div(outputs, size.simd)
    command = Pass(
        kind=PassKind.DENSE,
        post=PassPost.INT8,
        ternary=int(ternary),
        rows=rows,
        k_words=ceil_div(inputs, size.simd),
        n_tiles=ceil_div(outputs, size.pe),
        src_base=base,
        src_stride=stride,
        dst_base=out,
        dst_stride=words,
    )
    cycles = await bench.run_passes([command], dense_stream(size, weight, bias, rq, ternary))
    got = (await bench.read_act(out, rows, words))[:, :outputs]
    np.testing.assert_array_equal(got, f.requantize(acc, rq))
    return cycles


@cocotb.test()
async def dense_int8(dut: Any) -> None:
    bench = Bench(dut)
    await bench.start()
    for rows, inputs, outputs in ((7, 16, 8), (1, 40, 20), (13, 100, 50), (33, 48, 33), (2, 5, 3)):
        await dense(bench, rows, inputs, outputs)
    bench.stall_percent = 0
    most = bench.size.max_rows
    await dense(bench, most, 96, 24)
    await dense(bench, most - 1, 17, 70, stride=8)


@cocotb.test()
async def dense_formats_and_extremes(dut: Any) -> None:
    bench = Bench(dut, seed=2)
    await bench.start()
    await dense(bench, 11, 70, 40, ternary=True)
    await dense(bench, 1, 16, 90, ternary=True)
    await dense(bench, 9, 100, 30, extreme=True)
    await dense(bench, 5, 64, 30, ternary=True, extreme=True)


@cocotb.test()
async def dense_keeps_the_array_busy(dut: Any) -> None:
    """A pass whose tiles load faster than they compute takes a cycle for each row of each tile, and a start and end."""
    bench = Bench(dut, seed=3, stall_percent=0)
    await bench.start()
    size = bench.size
    rows, k_words, n_tiles = size.max_rows, 3, 4
    cycles = await dense(bench, rows, k_words * size.simd, n_tiles * size.pe, ternary=True)
    overhead = size.record_beats + size.tile_beats(2) + 60
    assert rows * k_words * n_tiles < cycles < rows * k_words * n_tiles + overhead, cycles


@cocotb.test()
async def dense_to_int16_add_gelu(dut: Any) -> None:
    bench = Bench(dut, seed=4)
    await bench.start()
    size, rng = bench.size, bench.rng
    for rows, inputs, outputs, post, spread in (
        (7, 20, 35, PassPost.INT16, 1.5),
        (1, 16, 8, PassPost.ADD, 1.0),
        (21, 60, 30, PassPost.ADD, 1.5),
        (19, 30, 50, PassPost.GELU, 0.15),
        (5, 70, 20, PassPost.GELU, 1.5),
        (33, 16, 50, PassPost.GELU, 0.01),
    ):
        x = rng.integers(-128, 128, (rows, inputs))
        weight = rng.integers(-128, 128, (outputs, inputs))
        bias = rng.integers(-3000, 3000, outputs)
        acc = f.matmul(x, weight, bias)
        rq = random_requant(rng, outputs, int(np.abs(acc).max()), INT16, spread)
        out_rq = Requant.of_scale(0.02 if spread > 1 else 0.08, INT8)
        middle = f.requantize(acc, rq)
        to_act = post == PassPost.GELU
        words = ceil_div(outputs, size.simd if to_act else size.pe)
        old = rng.integers(-32768, 32768, (rows, outputs))
        stride = await bench.write_act(5, x)
        await bench.write_res(9, old)
        command = Pass(
            kind=PassKind.DENSE,
            post=post,
            rows=rows,
            k_words=stride,
            n_tiles=ceil_div(outputs, size.pe),
            src_base=5,
            src_stride=stride,
            dst_base=500 if to_act else 9,
            dst_stride=words,
            multiplier=out_rq.multiplier[0],
            shift=out_rq.shift[0],
        )
        await bench.run_passes([command], dense_stream(size, weight, bias, rq))
        if to_act:
            got = await bench.read_act(500, rows, words)
            np.testing.assert_array_equal(got[:, :outputs], f.requantize(f.gelu_fixed(middle), out_rq))
        else:
            got = await bench.read_res(9, rows, words)
            want = middle if post == PassPost.INT16 else f.saturate(old + middle, INT16)
            np.testing.assert_array_equal(got[:, :outputs], want)
            assert not got[:, outputs:].any()  # lanes beyond the last column hold 0 in RES


async def attention(bench: Bench, rows: int, heads: int, dim: int, score_scale: float) -> None:
    size, rng = bench.size, bench.rng
    columns = heads * dim
    q, k, v = (rng.integers(-128, 128, (rows, columns)) for _ in range(3))
    if rows % 2:  # every score negative: a lane without a key must not win the maximum with 0
        q, k = np.abs(q) // 2 + 1, -np.abs(k)
    score = Requant.of_scale(score_scale, INT16)
    out = Requant.of_scale(float(rng.uniform(0.003, 0.02)), INT8)
    stride = ceil_div(columns, size.simd)
    bases = (2, 2 + rows * stride, 5 + 2 * rows * stride)
    for base, values in zip(bases, (q, k, v), strict=True):
        await bench.write_act(base, values)
    dst = bases[2] + rows * stride + 3
    untouched = await bench.read_act(dst, rows, stride)
    commands = []
    for h in range(heads):
        head = {"rows": rows, "column": h * dim, "dim": dim, "src_stride": stride}
        commands.append(
            Pass(
                kind=PassKind.SCORE,
                post=PassPost.SCORE,
                n_tiles=ceil_div(rows, size.pe),
                src_base=bases[0],
                kv_base=bases[1],
                multiplier=score.multiplier[0],
                shift=score.shift[0],
                **head,
            )
        )
        commands.append(
            Pass(
                kind=PassKind.MIX,
                post=PassPost.MIX,
                k_words=ceil_div(rows, size.simd),
                kv_base=bases[2],
                dst_base=dst,
                dst_stride=stride,
                multiplier=out.multiplier[0],
                shift=out.shift[0],
                **head,
            )
        )
    await bench.run_passes(commands, [])
    got = await bench.read_act(dst, rows, stride)
    for h in range(heads):
        c = slice(h * dim, (h + 1) * dim)
        np.testing.assert_array_equal(
            got[:, c], f.attention_head(q[:, c], k[:, c], v[:, c], score, out), err_msg=f"head {h}"
        )
    np.testing.assert_array_equal(got[:, columns:], untouched[:, columns:])


@cocotb.test()
async def attention_heads(dut: Any) -> None:
    bench = Bench(dut, seed=5)
    await bench.start()
    most = bench.size.max_rows
    for rows, heads, dim, scale in (
        (5, 1, 16, 0.01),
        (1, 2, 7, 0.02),
        (17, 3, 20, 0.02),
        (most, 2, 24, 0.001),
        (most - 3, 1, 70, 1.0),
        (33, 5, 11, 1e-6),
    ):
        await attention(bench, rows, heads, dim, scale)


@cocotb.test()
async def passes_back_to_back(dut: Any) -> None:
    """Dense passes between attention passes: their weights load while the attention runs."""
    bench = Bench(dut, seed=6, stall_percent=20)
    await bench.start()
    size, rng = bench.size, bench.rng
    rows, columns, hidden = 13, 24, 30
    x = rng.integers(-128, 128, (rows, columns))
    in_words, hidden_words = ceil_div(columns, size.simd), ceil_div(hidden, size.simd)
    await bench.write_act(0, x)
    beats, commands, want = [], [], x
    score, out = Requant.of_scale(0.01, INT16), Requant.of_scale(0.008, INT8)
    for step in range(3):
        w1, w2 = rng.integers(-128, 128, (hidden, columns)), rng.integers(-128, 128, (columns, hidden))
        zeros1, zeros2 = np.zeros(hidden, dtype=np.int64), np.zeros(columns, dtype=np.int64)
        rq1 = random_requant(rng, hidden, 128 * 60 * columns // 8, INT8)
        rq2 = random_requant(rng, columns, 128 * 60 * hidden // 8, INT8)
        beats += dense_stream(size, w1, zeros1, rq1) + dense_stream(size, w2, zeros2, rq2)
        base, mid, dst = step * 200, step * 200 + 60, step * 200 + 120
        commands.append(
            Pass(
                kind=PassKind.DENSE,
                post=PassPost.INT8,
                rows=rows,
                k_words=in_words,
                n_tiles=ceil_div(hidden, size.pe),
                src_base=base,
                src_stride=in_words,
                dst_base=mid,
                dst_stride=hidden_words,
            )
        )
        commands.append(
            Pass(
                kind=PassKind.DENSE,
                post=PassPost.INT8,
                rows=rows,
                k_words=hidden_words,
                n_tiles=ceil_div(columns, size.pe),
                src_base=mid,
                src_stride=hidden_words,
                dst_base=dst,
                dst_stride=in_words,
            )
        )
        for h in range(2):
            head = {"rows": rows, "column": h * 12, "dim": 12, "src_stride": in_words}
            commands.append(
                Pass(
                    kind=PassKind.SCORE,
                    post=PassPost.SCORE,
                    n_tiles=ceil_div(rows, size.pe),
                    src_base=dst,
                    kv_base=dst,
                    multiplier=score.multiplier[0],
                    shift=score.shift[0],
                    **head,
                )
            )
            commands.append(
                Pass(
                    kind=PassKind.MIX,
                    post=PassPost.MIX,
                    k_words=ceil_div(rows, size.simd),
                    kv_base=dst,
                    dst_base=base + 200,
                    dst_stride=in_words,
                    multiplier=out.multiplier[0],
                    shift=out.shift[0],
                    **head,
                )
            )
        y = f.requantize(f.matmul(f.requantize(f.matmul(want, w1, zeros1), rq1), w2, zeros2), rq2)
        heads = [f.attention_head(y[:, c], y[:, c], y[:, c], score, out) for c in (slice(0, 12), slice(12, 24))]
        want = np.concatenate(heads, axis=1)
    await bench.run_passes(commands, beats)
    np.testing.assert_array_equal((await bench.read_act(600, rows, in_words))[:, :columns], want)


@cocotb.test()
async def experts_through_the_queue(dut: Any) -> None:
    """Two layers over a queue: x by token, hidden rows 0.., the result times the gate into the token's row."""
    bench = Bench(dut, seed=7)
    await bench.start()
    size, rng = bench.size, bench.rng
    tokens, dim, hidden = size.max_rows, 40, 25
    x = rng.integers(-128, 128, (tokens, dim))
    residual = rng.integers(-32768, 32768, (tokens, dim))
    in_words, hidden_words = await bench.write_act(7, x), ceil_div(hidden, size.simd)
    await bench.write_res(4, residual)
    for expert, count in ((0, 1), (size.max_experts - 1, tokens), (size.max_experts // 2, 11)):
        chosen = np.sort(rng.choice(tokens, count, replace=False))
        gate = rng.choice([1, 32768, int(rng.integers(1, 32769))], count)
        base = expert * (size.max_rows + 1)
        await bench.write(QUEUE, base, [count, *(int(t) | int(g) << 16 for t, g in zip(chosen, gate, strict=True))])
        ternary = bool(expert)
        low, high = (-1, 2) if ternary else (-128, 128)
        w1, w2 = rng.integers(low, high, (hidden, dim)), rng.integers(low, high, (dim, hidden))
        b1, b2 = rng.integers(-500, 500, hidden), rng.integers(-500, 500, dim)
        acc1 = f.matmul(x[chosen], w1, b1)
        rq1 = random_requant(rng, hidden, int(np.abs(acc1).max()), INT16, 0.1)
        out = Requant.of_scale(0.04, INT8)
        h = f.requantize(f.gelu_fixed(f.requantize(acc1, rq1)), out)
        acc2 = f.matmul(h, w2, b2)
        rq2 = random_requant(rng, dim, int(np.abs(acc2).max()), INT16, 1.5)
        residual[chosen] = f.gated_add(residual[chosen], f.requantize(acc2, rq2), gate)
        common = {"kind": PassKind.DENSE, "ternary": int(ternary), "queued": 1, "queue_base": base + 1, "rows": count}
        await bench.run_passes(
            [
                Pass(
                    post=PassPost.GELU,
                    k_words=in_words,
                    n_tiles=ceil_div(hidden, size.pe),
                    src_base=7,
                    src_stride=in_words,
                    dst_base=600,
                    dst_stride=hidden_words,
                    multiplier=out.multiplier[0],
                    shift=out.shift[0],
                    **common,
                ),
                Pass(
                    post=PassPost.GATED,
                    k_words=hidden_words,
                    n_tiles=ceil_div(dim, size.pe),
                    src_base=600,
                    src_stride=hidden_words,
                    dst_base=4,
                    dst_stride=ceil_div(dim, size.pe),
                    **common,
                ),
            ],
            dense_stream(size, w1, b1, rq1, ternary) + dense_stream(size, w2, b2, rq2, ternary),
        )
        np.testing.assert_array_equal((await bench.read_res(4, tokens, ceil_div(dim, size.pe)))[:, :dim], residual)


@cocotb.test()
async def few_rows_right_after_many(dut: Any) -> None:
    """Two tiles of the short pass wait loaded when it starts: no partial sum may be read before it is written."""
    bench = Bench(dut, seed=8, stall_percent=0)
    await bench.start()
    size, rng = bench.size, bench.rng
    inputs, outputs = 3 * size.simd, size.pe
    x = rng.integers(-128, 128, (size.max_rows, inputs))
    await bench.write_act(0, x)
    for few in (1, 2, 3, 4, 5):
        beats, commands, wanted = [], [], []
        for rows, dst in ((size.max_rows, 500), (few, 700)):
            weight, bias = rng.integers(-1, 2, (outputs, inputs)), rng.integers(-50, 50, outputs)
            rq = random_requant(rng, outputs, 500, INT8)
            beats += dense_stream(size, weight, bias, rq, ternary=True)
            wanted.append((rows, dst, f.requantize(f.matmul(x[:rows], weight, bias), rq)))
            commands.append(
                Pass(
                    kind=PassKind.DENSE,
                    post=PassPost.INT8,
                    ternary=1,
                    rows=rows,
                    k_words=3,
                    n_tiles=1,
                    src_base=0,
                    src_stride=3,
                    dst_base=dst,
                    dst_stride=1,
                )
            )
        await bench.run_passes(commands, beats)
        for rows, dst, want in wanted:
            np.testing.assert_array_equal(
                (await bench.read_act(dst, rows, 1))[:, :outputs], want, err_msg=f"{few} rows"
            )
