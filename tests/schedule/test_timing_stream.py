# SPDX-License-Identifier: Apache-2.0
"""Arrival of the stream's blocks in the model of cycles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codesign.schedule.design import MachineSize
from codesign.schedule.timing_stream import Stream, Supply

SIZE = MachineSize(
    simd=32, pe=32, ports=4, act_words=1024, res_words=1024, max_rows=64, key_words=2, max_experts=8, acc_bits=24,
    norm_dim_max=96, max_instructions=64, fifo_blocks=64,
)  # fmt: skip
SUPPLY = Supply(bytes_per_cycle=48.0, latency=60.0)
BLOCK_CYCLES = SIZE.block_bytes / SUPPLY.bytes_per_cycle


def pops(supply: Supply, count: int, size: MachineSize = SIZE) -> list[int]:
    """When the blocks of one run are popped as soon as they are there."""
    stream = Stream(size, supply)
    stream.ask(0, count, 0)
    for _ in range(count):
        stream.pop(0)
    return stream.pops


def test_blocks_arrive_at_the_sustained_rate() -> None:
    times = pops(SUPPLY, 4000)
    assert times == sorted(set(times))
    assert times[-1] - times[0] == pytest.approx(4000 * BLOCK_CYCLES, rel=0.02)


def test_a_port_carries_a_beat_a_cycle() -> None:
    """However fast the memory is: one line a cycle."""
    times = pops(replace(SUPPLY, bytes_per_cycle=1000.0), 2000)
    assert times[-1] - times[0] == pytest.approx(2000 * SIZE.block_lines, rel=0.02)


def test_latency_counts_once() -> None:
    near, far = (pops(replace(SUPPLY, latency=latency), 2000) for latency in (60.0, 160.0))
    assert far[0] - near[0] == 100
    assert far[-1] - near[-1] == 100


def test_a_full_fifo_stops_the_reader() -> None:
    """Blocks that are popped late are there, but no more than have room; the next ones come a latency later."""
    stream = Stream(SIZE, SUPPLY)
    stream.ask(0, 1000, 0)
    late = 100_000
    times = [stream.pop(late if n == 0 else stream.popped + 1) for n in range(1000)]
    waits = next(n for n in range(1, 1000) if times[n] > times[n - 1] + 1)
    assert waits == pytest.approx(SIZE.fifo_blocks + 512 // SIZE.block_lines, abs=256 // SIZE.block_lines)
    assert times[-1] - late > (1000 - waits) * BLOCK_CYCLES


def test_a_block_of_ones_does_not_come_from_memory() -> None:
    plain, sliced = Stream(SIZE, SUPPLY), Stream(SIZE, SUPPLY)
    for n in range(50):
        plain.ask(100 * n, 8, 0)
        sliced.ask(100 * n, 8, 0, ones=True)
    ends = [plain.pop(0) for _ in range(50 * 8)], [sliced.pop(0) for _ in range(50 * 9)]
    assert ends[1][-1] == ends[0][-1] + 1


def test_ports_that_share_a_bank_open_rows_in_turn() -> None:
    """Rows of other banks open while one transfers; those of one bank do not."""
    banked = replace(SUPPLY, opening=20.0, banks=8, page_bytes=8192)
    apart, together = (pops(replace(banked, stripe=n * 8192), 2000)[-1] for n in (2, 8))
    free = pops(SUPPLY, 2000)[-1]
    assert free < apart < free + 100
    assert together > 1.1 * free


def test_a_write_waits_for_the_reads_before_it() -> None:
    def response(blocks: int, supply: Supply = SUPPLY, size: MachineSize = SIZE) -> int:
        stream = Stream(size, supply)
        stream.ask(0, blocks, 900)
        return stream.write(1000, 4)

    alone = response(0 + 1)
    assert 1060 <= alone <= 1080
    assert response(60) == pytest.approx(900 + 60 * BLOCK_CYCLES + 60, abs=20)
    deep = replace(SIZE, fifo_blocks=4096)
    assert response(2000, size=deep) > 900 + 2000 * BLOCK_CYCLES
    assert response(2000) < 900 + (SIZE.fifo_blocks + 512 // SIZE.block_lines) * BLOCK_CYCLES + 100  # no room for more
    refreshed = replace(SUPPLY, refresh_interval=2000.0)
    assert response(2000, refreshed, deep) == pytest.approx(1000 + 1000 + 60, abs=20)  # half an interval
