# SPDX-License-Identifier: Apache-2.0
"""The router against `codesign.reference.functions`, bit for bit, and cycle for cycle."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
import pytest
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge
from unit import Unit, run

from codesign.reference import functions as f
from codesign.schedule.design import MachineSize
from codesign.schedule.isa import Instruction, Opcode

Ints = npt.NDArray[np.int64]
UNIT = Unit(
    "tb_router",
    (
        "sdp_ram", "delay_line", "adder_tree", "word_fifo", "exp2_lane", "leading_byte", "reciprocal", "argmax_tree",
        "router",
    ),
)  # fmt: skip


def _machine(simd: int, pe: int, max_experts: int, max_rows: int) -> MachineSize:
    return MachineSize(
        simd=simd, pe=pe, ports=1, act_words=64, res_words=64, max_rows=max_rows, key_words=1, max_experts=max_experts,
        acc_bits=32, norm_dim_max=pe, max_instructions=64, fifo_blocks=32,
    )  # fmt: skip


SIZES = {
    "route1": _machine(16, 16, 1, 9),
    "route2": _machine(16, 16, 2, 32),
    "route12": _machine(32, 16, 12, 50),
    "route16": _machine(64, 48, 16, 129),
    "route64": _machine(64, 64, 64, 70),
}
"""From one expert to as many as the array has rows: every depth of the trees, numbers that are no power of two."""


@pytest.mark.parametrize("name", SIZES)
def test_router(name: str) -> None:
    run(UNIT, name, "test_router", SIZES[name])


class Bench:
    """Drives tb_router at falling edges; `queue` is what it has written."""

    def __init__(self, dut: Any, seed: int) -> None:
        self.dut = dut
        self.size = SIZES[os.environ["CODESIGN_MACHINE"]]
        self.random = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.queue: dict[int, int] = {}

    async def start(self) -> None:
        """Clock and reset."""
        for name in ("start_i", "logits_valid_i", "rst_ni"):
            getattr(self.dut, name).value = 0
        Clock(self.dut.clk_i, 2, unit="ns").start()
        await self.reset()

    async def reset(self) -> None:
        """Three cycles of reset."""
        self.dut.rst_ni.value = 0
        for _ in range(3):
            await FallingEdge(self.dut.clk_i)
        self.dut.rst_ni.value = 1

    async def begin(self, rows: int, experts: int, top_k: int) -> None:
        """The start pulse."""
        instruction = Instruction(opcode=Opcode.ROUTE, rows=rows, num_experts=experts, top_k=top_k)
        self.dut.instr_i.value, self.dut.start_i.value = int.from_bytes(instruction.encode(), "little"), 1
        await FallingEdge(self.dut.clk_i)
        self.dut.instr_i.value, self.dut.start_i.value = self.random.getrandbits(512), 0
        self.queue.clear()

    async def route(self, logits: Ints, top_k: int, chance: float = 1.0) -> int:
        """One ROUTE, a row coming with that chance each cycle; returns the cycles from the last row to done."""
        dut, (rows, experts) = self.dut, logits.shape
        lanes = self.rng.integers(-32768, 32768, (rows, self.size.pe))  # logits of experts there are not: anything
        lanes[:, :experts] = logits
        words = [int.from_bytes(row.astype("<i2").tobytes(), "little") for row in lanes]
        await self.begin(rows, experts, top_k)
        sent, last = 0, 0
        for cycle in range(200000):
            send = sent < rows and self.random.random() < chance
            dut.logits_valid_i.value = int(send)
            dut.logits_row_i.value, dut.logits_i.value = sent % self.size.max_rows, words[sent % rows]
            if send:
                sent, last = sent + 1, cycle
            if int(dut.done_o.value):
                assert not int(dut.queue_we_o.value)
                assert sent == rows
                await FallingEdge(dut.clk_i)
                assert int(dut.state_o.value) == 0
                self.check(logits, top_k)
                return cycle - last
            if int(dut.queue_we_o.value):
                address = int(dut.queue_waddr_o.value)
                assert address not in self.queue, "written twice"
                self.queue[address] = int(dut.queue_wdata_o.value)
            assert int(dut.state_o.value) in (1, 2, 3)
            await FallingEdge(dut.clk_i)
        raise AssertionError(f"not done; state {int(dut.state_o.value)}")

    def check(self, logits: Ints, top_k: int) -> None:
        """The queues hold the gates of the reference in ascending token order, the counts, and nothing else."""
        rows, experts = logits.shape
        got = np.full((rows, experts), -1, dtype=np.int64)
        counts, stride = int(self.dut.counts_o.value), self.size.max_rows + 1
        for e in range(self.size.max_experts):
            count = self.queue.pop(e * stride)
            assert count == (counts >> (16 * e)) & 0xFFFF
            entries = [self.queue.pop(e * stride + 1 + i) for i in range(count)]
            tokens = [entry & 0xFFFF for entry in entries]
            assert tokens == sorted(set(tokens))
            for entry in entries:
                got[entry & 0xFFFF, e] = entry >> 16
        assert not self.queue
        assert ((got >= 0).sum(axis=1) == top_k).all()
        np.testing.assert_array_equal(np.maximum(got, 0), f.gates(logits, top_k))


@cocotb.test()
async def random_logits(dut: Any) -> None:
    """Numbers of rows, experts and picks, at every pace of the logits."""
    bench = Bench(dut, seed=21)
    await bench.start()
    most, size, rng = bench.size.max_experts, bench.size, bench.rng
    for rows, experts, top_k, spread, chance in (
        (1, most, 1, 1000, 1.0),
        (size.max_rows, most, 2, 700, 1.0),
        (size.max_rows, most, 4, 32768, 0.5),
        (13, most, most, 300, 0.3),
        (size.max_rows, 3, 2, 50, 0.05),
        (size.max_rows, 1, 1, 5, 1.0),
        (size.max_rows, most, 1, 5000, 1.0),
        (size.max_rows, most - 1, 3, 100, 0.8),
    ):
        experts = max(1, min(experts, most))
        logits = rng.integers(-spread, spread, (rows, experts))
        await bench.route(logits, min(top_k, experts), chance)


@cocotb.test()
async def ties_and_extremes(dut: Any) -> None:
    """Equal logits go to the lower expert; the ends of int16; logits so far apart that gates vanish."""
    bench = Bench(dut, seed=22)
    await bench.start()
    most, rng = bench.size.max_experts, bench.rng
    ends, near, far = [-32768, 32767], [-1, 0, 1, 2], [0, 4095, 4096, 4097]
    for values in ([0], [-32768], [32767], [0, 1], [32767, 28000], ends, near, far):
        for top_k in {1, min(2, most), most}:
            await bench.route(rng.choice(values, (bench.size.max_rows, most)).astype(np.int64), top_k)


def tail(size: MachineSize, top_k: int) -> int:
    """Cycles from the last row's logits to done, for a router that waits for it."""
    levels = (size.max_experts - 1).bit_length()
    ring = 1 + max(2, (levels + 1) // 2)
    factor = 10 + max(1, levels)  # exponentials, their sum, its reciprocal, and its way through the FIFO
    picks = (top_k - 1) * ring + 4
    return 3 + ring + max(factor, picks) + top_k + size.max_experts + 5


@cocotb.test()
async def one_entry_a_cycle(dut: Any) -> None:
    """Rows that come faster than their entries leave take `top_k` cycles each; then comes a fixed tail."""
    bench = Bench(dut, seed=23)
    await bench.start()
    size, rng = bench.size, bench.rng
    for top_k in sorted({1, min(2, size.max_experts), min(4, size.max_experts), size.max_experts}):
        for rows in (1, size.max_rows):
            cycles = await bench.route(rng.integers(-999, 999, (rows, size.max_experts)), top_k)
            assert cycles == (rows - 1) * (top_k - 1) + tail(size, top_k), (rows, top_k, cycles, tail(size, top_k))
        slow = await bench.route(rng.integers(-999, 999, (size.max_rows, size.max_experts)), top_k, 0.3 / top_k)
        assert slow <= 8 * top_k + tail(size, top_k)


@cocotb.test()
async def a_reset_ends_everything(dut: Any) -> None:
    """After a reset at any moment the next ROUTE is right."""
    bench = Bench(dut, seed=24)
    await bench.start()
    size, rng = bench.size, bench.rng
    top_k = min(3, size.max_experts)
    logits = rng.integers(-999, 999, (size.max_rows, size.max_experts))
    for cycles in (1, 6, 13, 21, 30, 41, 60):
        await bench.begin(size.max_rows, size.max_experts, top_k)
        for row in range(cycles):
            dut.logits_valid_i.value, dut.logits_row_i.value = int(row < size.max_rows), row % size.max_rows
            await FallingEdge(dut.clk_i)
        dut.logits_valid_i.value = 0
        await bench.reset()
        assert (int(dut.state_o.value), int(dut.queue_we_o.value), int(dut.counts_o.value)) == (0, 0, 0)
        await bench.route(logits, top_k, 0.7)
