# SPDX-License-Identifier: Apache-2.0
"""The router behind the unified unit's logits, against `codesign.reference.functions`, bit for bit."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge
from harness import QUEUE, SIZES, Bench, Ints, Pass, ceil_div, dense_stream, random_requant, run

from codesign.emit.params import PassKind, PassPost
from codesign.reference import functions as f
from codesign.spec.types import INT16, Requant


@pytest.mark.parametrize("name", SIZES)
def test_router(name: str) -> None:
    run(name, "test_router")


async def route(bench: Bench, x: Ints, weight: Ints, bias: Ints, rq: Requant, top_k: int) -> None:
    """One ROUTE: the gates in the queues are those of the reference, the tokens ascend."""
    size, dut = bench.size, bench.dut
    rows, inputs = x.shape
    experts = weight.shape[0]
    stride = await bench.write_act(20, x)
    await bench.write(QUEUE, 0, [0xFFFFFFFF] * (size.max_experts * (size.max_rows + 1)))
    command = Pass(
        kind=PassKind.DENSE,
        post=PassPost.LOGITS,
        rows=rows,
        k_words=ceil_div(inputs, size.simd),
        n_tiles=1,
        src_base=20,
        src_stride=stride,
    )
    bench.set_fields(command)
    dut.num_experts.value = experts
    dut.top_k.value = top_k
    await bench.pulse("route_start")
    done = cocotb.start_soon(bench.wait("route_done"))
    await bench.run_passes([command], dense_stream(size, weight, bias, rq))
    await done
    await FallingEdge(dut.clk)
    want = f.gates(f.requantize(f.matmul(x, weight, bias), rq), top_k)
    words = await bench.read(QUEUE, 0, size.max_experts * (size.max_rows + 1))
    got = np.zeros((rows, experts), dtype=np.int64)
    counts, total = int(dut.counts.value), 0
    for e in range(size.max_experts):
        head = e * (size.max_rows + 1)
        count = words[head]
        assert count == (counts >> (16 * e)) & 0xFFFF
        entries = words[head + 1 : head + 1 + count]
        assert all(w == 0xFFFFFFFF for w in words[head + 1 + count : head + 1 + size.max_rows])
        tokens = [w & 0xFFFF for w in entries]
        assert tokens == sorted(set(tokens))
        for word in entries:
            got[word & 0xFFFF, e] = word >> 16
        total += count
    assert total == rows * top_k
    np.testing.assert_array_equal(got, want)


@cocotb.test()
async def random_logits(dut: Any) -> None:
    bench = Bench(dut, seed=21)
    await bench.start()
    size, rng = bench.size, bench.rng
    most = min(size.max_experts, size.pe)
    few = min(most, 3)
    for rows, inputs, experts, top_k, spread in (
        (1, 10, min(most, 2), 1, 0.1),
        (size.max_rows, 40, most, 2, 0.05),
        (13, 50, most, most, 0.02),
        (7, 16, few, min(few, 2), 0.01),
        (9, 16, 1, 1, 0.001),
        (21, 20, most, 4, 2.0),
    ):
        x, weight = rng.integers(-128, 128, (rows, inputs)), rng.integers(-128, 128, (experts, inputs))
        bias = rng.integers(-1000, 1000, experts)
        largest = int(np.abs(f.matmul(x, weight, bias)).max())
        await route(bench, x, weight, bias, random_requant(rng, experts, largest, INT16, spread), min(top_k, experts))


@cocotb.test()
async def ties_and_extremes(dut: Any) -> None:
    """Equal logits go to the lower expert; all saturated logits; logits so far apart that gates vanish."""
    bench = Bench(dut, seed=22, stall_percent=0)
    await bench.start()
    rng, most = bench.rng, min(bench.size.max_experts, bench.size.pe)
    x = rng.choice([-128, -1, 0, 1, 127], (30, 16))
    for scale in (0.0001, 0.01, 30.0):
        weight = rng.integers(-1, 2, (most, 16))
        weight[most // 2] = weight[0]
        rq = Requant.of_scale([scale] * most, INT16)
        await route(bench, x, weight, np.zeros(most, dtype=np.int64), rq, min(most, 2))
