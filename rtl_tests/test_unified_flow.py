# SPDX-License-Identifier: Apache-2.0
"""How passes of the unified compute unit follow one another: cycle counts, resets, random programs."""

from __future__ import annotations

import os
from typing import Any

import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge
from unified_bench import Bench, Pass
from unified_passes import SIZES, UNIT, Work, attention, bench_of, dense_pass, head_passes, layer_for
from unit import run

from codesign.emit.params import PassKind, PassPost, RowSource
from codesign.schedule.stream import ceil_div
from codesign.spec.types import INT8, INT16, Requant

ROUNDS = int(os.environ.get("CODESIGN_UNIFIED_ROUNDS", "4"))
"""Random programs a size; more for a soak."""


@pytest.mark.parametrize("name", SIZES)
def test_unified_flow(name: str) -> None:
    run(UNIT, name, "test_unified_flow", SIZES[name])


@cocotb.test()
async def nothing_is_lost_between_tiles_and_passes(dut: Any) -> None:
    """Tiles of 8 planes, 9 rows or more: passes one after the other take their slots, and the same few cycles once."""
    bench = await bench_of(dut, 12, 0)
    size = bench.size
    least = max(9, 8 + size.record_blocks)  # a block a cycle: a tile with records takes that long
    overheads = set()
    for rows, k_words, n_tiles, passes in (
        (least, 1, 1, 1),
        (least, 1, 2, 4),
        (least, 3, 2, 3),
        (size.max_rows, 2, 3, 2),
    ):
        x = bench.memories.get_act(0, 3, rows, k_words * size.simd)
        layers = [layer_for(bench, x, n_tiles * size.pe) for _ in range(passes)]
        dst = (500, ceil_div(n_tiles * size.pe, size.simd))
        work = [dense_pass(bench, layer, rows, (0, 3), dst, PassPost.INT8) for layer in layers]
        overheads.add(await bench.check(work) - rows * k_words * n_tiles * passes)
    cocotb.log.info("cycles beside slots: %s", overheads)
    assert len(overheads) == 1
    assert overheads.pop() < 80


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
        assert not dut.state_o.value
        assert not dut.norm_wait_o.value
        await bench.load()
        await bench.check(both)


class Mixer:
    """Random passes that obey the protocol: rows are read when they are final, or from the pass before as they land."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.work: Work = []
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

    def add_dense(self) -> bool:
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
            more = {"queued": 1, "queue_base": 1}
            post = PassPost.GATED if r.random() < 0.4 else PassPost.GELU
        layer = layer_for(
            bench, bench.rng.integers(-128, 128, (4, k_words * size.simd)), n_tiles * size.pe, INT16, planes,
            sliced=sliced, spread=r.choice((0.02, 0.3, 1.5)),
        )  # fmt: skip
        out = Requant.of_scale(r.uniform(0.01, 0.2), INT8)
        words = ceil_div(n_tiles * size.pe, size.simd) + r.randint(0, 1)
        to_act = post in (PassPost.INT8, PassPost.GELU)
        base = self.take(rows * words) if to_act else r.randint(0, 3)
        if base is None:
            return False
        dst = (base, words if to_act else n_tiles + r.randint(0, 1))
        self.work.append(
            dense_pass(
                bench, layer, rows, src, dst, post, source=source, last=r.randint(0, 1),
                multiplier=out.multiplier[0], shift=out.shift[0], **more,
            )
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
            if not add():
                break
        await bench.check(mixer.work, mixer.filler)
