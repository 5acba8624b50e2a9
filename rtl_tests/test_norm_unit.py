# SPDX-License-Identifier: Apache-2.0
"""The norm unit against `codesign.reference.functions`, bit for bit."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge
from harness import SIZES, Bench, Ints, Pass, ceil_div, record, run

from codesign.reference import functions as f


@pytest.mark.parametrize("name", SIZES)
def test_norm_unit(name: str) -> None:
    run(name, "test_norm_unit")


async def norm(bench: Bench, x: Ints, gain: Ints, bias: Ints, shift: int, stride: int | None = None) -> int:
    """One NORM; returns its cycles."""
    size, dut = bench.size, bench.dut
    rows, dim = x.shape
    tiles, words = ceil_div(dim, size.pe), ceil_div(dim, size.simd)
    stride = stride or tiles
    spread = bench.rng.integers(-32768, 32768, (rows, stride * size.pe))
    spread[:, : tiles * size.pe] = 0
    spread[:, :dim] = x
    await bench.write_res(11, spread)
    records = [record(int(b), int(g), 0) for g, b in zip(gain, bias, strict=True)] + [0] * (tiles * size.pe - dim)
    beats = [records[i] | records[i + 1] << 64 for i in range(0, len(records), 2)]
    bench.set_fields(
        Pass(
            rows=rows,
            n_tiles=tiles,
            src_base=11,
            src_stride=stride,
            dst_base=401,
            dst_stride=words,
            dim=dim,
            shift=shift,
        )
    )
    dut.stream_to_norm.value = 1
    bench.beats_taken = 0
    await bench.pulse("norm_start")
    feeder = cocotb.start_soon(bench.feed(beats))
    cycles = await bench.wait("norm_done")
    await FallingEdge(dut.clk)
    assert bench.beats_taken == len(beats)
    feeder.cancel()
    dut.beat_valid.value = 0
    got = (await bench.read_act(401, rows, words))[:, :dim]
    np.testing.assert_array_equal(got, f.affine(f.normalise(x), gain, bias, shift))
    return cycles


@cocotb.test()
async def random_rows(dut: Any) -> None:
    bench = Bench(dut, seed=11)
    await bench.start()
    size, rng = bench.size, bench.rng
    for rows, dim, low, high in (
        (1, 1, -5, 5),
        (3, 8, -32768, 32768),
        (size.max_rows, 33, -4000, 9000),
        (7, size.norm_dim_max, -32768, 32768),
        (5, size.norm_dim_max - 1, 32700, 32768),
        (9, 50, -1, 2),
        (2, 17, -300, -299),
    ):
        x = rng.integers(low, high, (rows, dim))
        gain = rng.integers(-32768, 32768, dim)
        bias = rng.integers(-(1 << 24), 1 << 24, dim)
        await norm(bench, x, gain, bias, int(rng.integers(15, 22)), stride=ceil_div(dim, size.pe) + rows % 2)


@cocotb.test()
async def extremes(dut: Any) -> None:
    bench = Bench(dut, seed=12, stall_percent=0)
    await bench.start()
    size, rng = bench.size, bench.rng
    dim = size.norm_dim_max
    rows = [np.full(dim, v) for v in (0, -32768, 32767)]
    one = np.zeros(dim, dtype=np.int64)
    one[-1] = -32768
    half = np.where(np.arange(dim) < dim // 2, -32768, 32767)
    step = np.where(np.arange(dim) == 0, 32767, 32766)
    x = np.stack([*rows, one, -one - 1, half, step, np.arange(dim) - dim // 2]).astype(np.int64)
    for shift, size_of_bias in ((1, 1 << 31), (31, 1 << 31), (18, 1 << 16)):
        gain = rng.choice([-32768, 32767, 12345], dim)
        bias = rng.choice([-size_of_bias, size_of_bias - 1, 0], dim)
        await norm(bench, x, gain, bias, shift)


@cocotb.test()
async def one_word_a_cycle(dut: Any) -> None:
    bench = Bench(dut, seed=13, stall_percent=0)
    await bench.start()
    dim, rows = bench.size.norm_dim_max, bench.size.max_rows
    x = bench.rng.integers(-3000, 3000, (rows, dim))
    cycles = await norm(bench, x, np.full(dim, 4096), np.zeros(dim, dtype=np.int64), 16)
    words = rows * ceil_div(dim, bench.size.pe)
    assert 2 * words < cycles < 2 * words + 60, cycles
