# SPDX-License-Identifier: Apache-2.0
"""The norm unit against `codesign.reference.functions`, bit for bit, and cycle for cycle where nothing stalls it."""

from __future__ import annotations

import os
import random
from collections import deque
from dataclasses import dataclass
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
import pytest
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly
from unit import Unit, run

from codesign.reference import functions as f
from codesign.schedule import stream
from codesign.schedule.design import MachineSize
from codesign.schedule.isa import Instruction, Opcode

Ints = npt.NDArray[np.int64]
PARTS = (
    "sdp_ram", "delay_line", "adder_tree", "soft_multiplier", "word_fifo", "leading_byte", "rsqrt", "norm_stats",
    "norm_lane",
)  # fmt: skip
UNIT = Unit("tb_norm_unit", (*PARTS, "norm_unit"))
BLOCK_LATENCY = 3
SRC, DST = 11, 5


def _machine(simd: int, pe: int, ports: int, norm_dim_max: int, max_rows: int, act_words: int) -> MachineSize:
    return MachineSize(
        simd=simd, pe=pe, ports=ports, act_words=act_words, res_words=1400, max_rows=max_rows, key_words=1,
        max_experts=1, acc_bits=32, norm_dim_max=norm_dim_max, max_instructions=64, fifo_blocks=32,
    )  # fmt: skip


SIZES = {
    "norm16x16": _machine(16, 16, 1, 1008, 21, 1400),
    "norm32x16": _machine(32, 16, 4, 192, 64, 700),
    "norm64x48": _machine(64, 48, 4, 192, 129, 600),
    "norm64x64": _machine(64, 64, 2, 64, 33, 100),
}
"""One to four blocks of records a tile; tiles that share a word, cross words, fill words; one to 63 tiles a row."""


@pytest.mark.parametrize("name", SIZES)
def test_norm_unit(name: str) -> None:
    run(UNIT, name, "test_norm_unit", SIZES[name])


@dataclass(frozen=True)
class Pace:
    """Chances, a cycle, that a block is there, a row of RES becomes final, and ACT takes a word."""

    block: float = 1.0
    row: float = 1.0
    write: float = 1.0


FULL = Pace()


class Bench:
    """Drives tb_norm_unit a cycle at a time: inputs change at falling edges, outputs are read when settled."""

    def __init__(self, dut: Any, seed: int) -> None:
        self.dut = dut
        self.size = SIZES[os.environ["CODESIGN_MACHINE"]]
        self.random = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.act = self.rng.integers(-128, 128, self.size.act_words * self.size.simd).astype(np.int8)

    async def start(self) -> None:
        """Clock and reset."""
        for name in ("start_i", "block_avail_i", "res_we_i", "w_ready_i", "chained_i", "rows_ready_i", "rst_ni"):
            getattr(self.dut, name).value = 0
        Clock(self.dut.clk_i, 2, unit="ns").start()
        await self.reset()

    async def reset(self) -> None:
        """Three cycles of reset."""
        self.dut.rst_ni.value = 0
        for _ in range(3):
            await FallingEdge(self.dut.clk_i)
        self.dut.rst_ni.value = 1

    async def write_row(self, row: Ints, word: int) -> None:
        """One row of RES, a word a cycle; at the last one's falling edge it is written."""
        pe = self.size.pe
        for j in range(len(row) // pe):
            self.dut.res_we_i.value, self.dut.res_waddr_i.value = 1, word + j
            self.dut.res_wdata_i.value = int.from_bytes(row[j * pe : (j + 1) * pe].astype("<i2").tobytes(), "little")
            await FallingEdge(self.dut.clk_i)
        self.dut.res_we_i.value = 0

    async def rows_become_final(self, rows: Ints, stride: int, pace: Pace) -> None:
        """Writes the rows of RES while the unit waits for them."""
        for r, row in enumerate(rows):
            while self.random.random() > pace.row:
                await FallingEdge(self.dut.clk_i)
            await self.write_row(row, SRC + r * stride)
            self.dut.rows_ready_i.value = r + 1
        await FallingEdge(self.dut.clk_i)
        self.dut.rows_ready_i.value = 0xFFFF

    async def feed(self, blocks: list[int], pace: Pace) -> None:
        """Hands the blocks out, BLOCK_LATENCY after their pops; nothing may be popped after the last."""
        dut, due, left, cycle = self.dut, deque[tuple[int, int]](), deque(blocks), 0
        while True:
            noise = self.random.getrandbits(self.size.pe * self.size.simd)
            dut.block_i.value = due.popleft()[1] if due and due[0][0] == cycle else noise
            dut.block_avail_i.value = int(self.random.random() < pace.block) if left or not due else 0
            await ReadOnly()
            if int(dut.block_pop_o.value):
                assert int(dut.block_avail_i.value), "a pop without a block"
                assert left, "a pop too many"
                due.append((cycle + BLOCK_LATENCY, left.popleft()))
                assert int(dut.block_done_o.value) == (not left)
            else:
                assert not int(dut.block_done_o.value)
            cycle += 1
            await FallingEdge(dut.clk_i)

    async def collect(self, rows: int, tiles: int, pace: Pace) -> int:
        """Takes the results into `act` until done; returns the cycles since start."""
        dut, pe, written, held = self.dut, self.size.pe, 0, None
        for cycle in range(1, 200000):
            dut.w_ready_i.value = int(self.random.random() < pace.write)
            await ReadOnly()
            assert int(dut.rows_o.value) == written // tiles
            valid, ready = int(dut.w_valid_o.value), int(dut.w_ready_i.value)
            if int(dut.done_o.value):
                assert written == rows * tiles
                assert not valid
                return cycle
            if valid:
                word = (int(dut.w_word_o.value), int(dut.w_granule_o.value), int(dut.w_data_o.value))
                assert held is None or held == word, "a word must stay until it is taken"
                held = None if ready else word
                if ready:
                    at = word[0] * self.size.simd + 16 * word[1]
                    self.act[at : at + pe] = np.frombuffer(word[2].to_bytes(pe, "little"), dtype=np.int8)
                    written += 1
            else:
                assert held is None, "valid must stay"
            assert int(dut.state_o.value) in (1, 2, 3)
            await FallingEdge(dut.clk_i)
        raise AssertionError(f"not done; state {int(dut.state_o.value)}, {written} words written")


def instruction(size: MachineSize, rows: int, dim: int, shift: int, src_stride: int, dst_stride: int) -> Instruction:
    tiles = -(-dim // size.pe)
    return Instruction(
        opcode=Opcode.NORM, rows=rows, dim=dim, n_tiles=tiles, src_base=SRC, src_stride=src_stride, dst_base=DST,
        dst_stride=dst_stride, shift=shift, blocks=tiles * size.record_blocks,
    )  # fmt: skip


def padded_rows(bench: Bench, x: Ints, tiles: int) -> Ints:
    rows = np.zeros((len(x), tiles * bench.size.pe), dtype=np.int64)
    rows[:, : x.shape[1]] = x
    return rows


async def norm(
    bench: Bench, x: Ints, gain: Ints, bias: Ints, shift: int, pace: Pace = FULL, chained: bool = False, gap: int = 0
) -> int:
    """One NORM; returns its cycles from start to done."""
    size, dut = bench.size, bench.dut
    rows, dim = x.shape
    tiles = -(-dim // size.pe)
    src_stride, dst_stride = tiles + gap, -(-tiles * size.pe // size.simd) + gap
    padded = padded_rows(bench, x, tiles)
    spoiled = bench.rng.integers(-32768, 32768, padded.shape)
    for r in range(rows):
        await bench.write_row(spoiled[r] if chained else padded[r], SRC + r * src_stride)
    data = stream.norm(gain, bias, size)
    step = size.block_bytes
    blocks = [int.from_bytes(data[i : i + step], "little") for i in range(0, len(data), step)]
    dut.instr_i.value = int.from_bytes(instruction(size, rows, dim, shift, src_stride, dst_stride).encode(), "little")
    dut.chained_i.value, dut.rows_ready_i.value, dut.start_i.value = int(chained), 0, 1
    want = bench.act.copy()
    await FallingEdge(dut.clk_i)
    dut.start_i.value, dut.instr_i.value, dut.chained_i.value = 0, bench.random.getrandbits(512), 0
    feeder = cocotb.start_soon(bench.feed(blocks, pace))
    writer = cocotb.start_soon(bench.rows_become_final(padded, src_stride, pace)) if chained else None
    cycles = await bench.collect(rows, tiles, pace)
    await FallingEdge(dut.clk_i)
    feeder.cancel()
    if writer is not None:
        await writer
    y = f.affine(f.normalise(x), gain, bias, shift)
    for r in range(rows):
        at = (DST + r * dst_stride) * size.simd
        np.testing.assert_array_equal(bench.act[at : at + dim], y[r], err_msg=f"row {r}")
        want[at : at + tiles * size.pe] = bench.act[at : at + tiles * size.pe]  # lanes of the padding may hold anything
    np.testing.assert_array_equal(bench.act, want, err_msg="outside the result")
    assert int(dut.state_o.value) == 0
    return cycles


def parameters(bench: Bench, dim: int, size_of_bias: int = 1 << 24) -> tuple[Ints, Ints]:
    return bench.rng.integers(-32768, 32768, dim), bench.rng.integers(-size_of_bias, size_of_bias, dim)


def limit(bench: Bench, dim: int, rows: int) -> int:
    """Rows that fit the memories of the small machine."""
    size, tiles = bench.size, -(-dim // bench.size.pe)
    words = -(-tiles * size.pe // size.simd)
    return min(rows, size.max_rows, (size.res_words - SRC) // (tiles + 1), (size.act_words - DST - 1) // (words + 1))


@cocotb.test()
async def random_rows(dut: Any) -> None:
    """Widths that are no multiple of the array's, strides with gaps, stalls everywhere, chained and not."""
    bench = Bench(dut, seed=11)
    await bench.start()
    size, rng = bench.size, bench.rng
    most = size.norm_dim_max
    cases = (
        (1, 1, -5, 5),
        (3, 8, -32768, 32768),
        (size.max_rows, 33, -4000, 9000),
        (7, most, -32768, 32768),
        (5, most - 1, 32700, 32768),
        (9, most // 2 + 3, -1, 2),
        (2, 17, -300, -299),
        (size.max_rows, most, -900, 900),
    )
    for n, (rows, dim, low, high) in enumerate(cases):
        x = rng.integers(low, high, (limit(bench, dim, rows), dim))
        pace = (FULL, Pace(0.3, 1.0, 1.0), Pace(1.0, 0.4, 0.5), Pace(1.0, 1.0, 0.2), Pace(0.6, 0.3, 0.9))[n % 5]
        await norm(bench, x, *parameters(bench, dim), int(rng.integers(15, 22)), pace, bool(n % 2), gap=n % 2)


@cocotb.test()
async def extremes(dut: Any) -> None:
    """Rows without variance, the ends of int16, one channel that stands out, biases and shifts at their ends."""
    bench = Bench(dut, seed=12)
    await bench.start()
    size, rng = bench.size, bench.rng
    for dim in (size.norm_dim_max, size.norm_dim_max - 1, 2):
        one = np.zeros(dim, dtype=np.int64)
        one[-1] = -32768
        half = np.where(np.arange(dim) < dim // 2, -32768, 32767)
        step = np.where(np.arange(dim) == 0, 32767, 32766)
        equal = (np.full(dim, v) for v in (0, -32768, 32767, -1))
        x = np.stack([*equal, one, -one - 1, half, -1 - half, step, np.arange(dim)]).astype(np.int64)
        whole = 1 << 31
        for shift, size_of_bias in ((1, whole), (31, whole), (32, whole), (33, whole), (34, whole), (63, 9), (18, 99)):
            gain = rng.choice([-32768, 32767, 12345, 0], dim)
            bias = rng.choice([-size_of_bias, size_of_bias - 1, 0], dim)
            await norm(bench, x, gain, bias, shift)


@cocotb.test()
async def one_word_a_cycle(dut: Any) -> None:
    """The time of a NORM is its words and a fixed latency, whatever rows and tiles; chained, it follows the rows."""
    bench = Bench(dut, seed=13)
    await bench.start()
    size = bench.size
    latency = 38 + (size.pe - 1).bit_length()
    for dim, most in ((size.norm_dim_max, size.max_rows), (size.pe, size.max_rows), (size.norm_dim_max, 1)):
        rows, tiles = limit(bench, dim, most), -(-dim // size.pe)
        x = bench.rng.integers(-3000, 3000, (rows, dim))
        cycles = await norm(bench, x, np.full(dim, 4096), np.zeros(dim, dtype=np.int64), 16)
        # The first row cannot end before the last record is there; with several blocks a tile that may be later.
        records = tiles * size.record_blocks + (rows - 1) * tiles + BLOCK_LATENCY + 18
        assert cycles == max(rows * tiles + tiles + latency, records), (cycles, rows, tiles)
        cycles = await norm(bench, x, np.full(dim, 4096), np.zeros(dim, dtype=np.int64), 16, chained=True)
        assert cycles <= max(rows * tiles + 2 * tiles + latency + 2, records), (cycles, rows, tiles)


@cocotb.test()
async def a_reset_ends_everything(dut: Any) -> None:
    """After a reset at any moment the next NORM is right."""
    bench = Bench(dut, seed=14)
    await bench.start()
    size = bench.size
    dim = size.norm_dim_max - 5
    for cycles in (1, 4, 20, 37, 55, 80, 120):
        x = bench.rng.integers(-3000, 3000, (limit(bench, dim, 12), dim))
        dut.instr_i.value = int.from_bytes(instruction(size, len(x), dim, 17, 40, 40).encode(), "little")
        dut.start_i.value, dut.block_avail_i.value, dut.w_ready_i.value = 1, 1, cycles % 2
        await FallingEdge(dut.clk_i)
        dut.start_i.value = 0
        for _ in range(cycles):
            await FallingEdge(dut.clk_i)
        assert int(dut.state_o.value) != 0
        dut.block_avail_i.value = 0
        await bench.reset()
        assert (int(dut.state_o.value), int(dut.w_valid_o.value), int(dut.rows_o.value)) == (0, 0, 0)
        await norm(bench, x, *parameters(bench, dim), 17, Pace(0.8, 1.0, 0.8))
