# SPDX-License-Identifier: Apache-2.0
"""act_write_arbiter: every writer's words come once and in its order, lane by lane; the unified unit never waits."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import cocotb
import pytest
from cocotb.triggers import Timer
from unit import Unit, run, size_under_test

from codesign.schedule.design import MachineSize

WRITERS = ("unified", "norm", "load")
"""The first comes first."""


@pytest.mark.parametrize("name", ["16x16p1", "32x16p4", "64x48p4"])
def test_act_write_arbiter(name: str) -> None:
    run(Unit("act_write_arbiter"), name, "test_act_write_arbiter")


@dataclass(frozen=True)
class Write:
    """What a writer offers until it is taken."""

    word: int
    granule: int
    data: int
    mask: int


def draw(writer: str, size: MachineSize, rng: random.Random) -> Write:
    """Any lanes, as many as an array has rows, or whole words."""
    lanes = size.pe if writer == "norm" else size.simd
    mask = rng.getrandbits(lanes) if writer == "unified" else (1 << lanes) - 1
    granule = 0 if writer == "load" else rng.randrange(size.simd // 16)
    return Write(rng.randrange(size.act_words), granule, rng.getrandbits(8 * lanes), mask)


def offer(dut: Any, writer: str, write: Write | None) -> None:
    getattr(dut, f"{writer}_valid_i").value = int(write is not None)
    for name, value in vars(write).items() if write else ():
        if hasattr(dut, f"{writer}_{name}_i"):
            getattr(dut, f"{writer}_{name}_i").value = value


def check(dut: Any, write: Write, lanes: int) -> None:
    """The word that goes to ACT; data count in the lanes of the mask."""
    assert (int(dut.w_word_o.value), int(dut.w_granule_o.value)) == (write.word, write.granule)
    assert int(dut.w_mask_o.value) == write.mask
    bits = sum(0xFF << (8 * i) for i in range(lanes) if write.mask >> i & 1)
    assert int(dut.w_data_o.value) & bits == write.data & bits


@cocotb.test()
async def writers_take_turns(dut: Any) -> None:
    """At every mix of paces: who is refused holds its word, who is accepted is written in that cycle."""
    size, rng = size_under_test(), random.Random(41)
    waiting: dict[str, Write] = {}
    written = dict.fromkeys(WRITERS, 0)
    for cycle in range(3000):
        if cycle % 50 == 0:
            pace = {writer: rng.choice((0.1, 0.5, 1.0)) for writer in WRITERS}
        for writer in WRITERS:
            if writer not in waiting and rng.random() < pace[writer]:
                waiting[writer] = draw(writer, size, rng)
            offer(dut, writer, waiting.get(writer))
        await Timer(1, "ns")
        winner = next((writer for writer in WRITERS if writer in waiting), None)
        assert bool(dut.w_valid_o.value) == (winner is not None)
        for writer in ("norm", "load"):
            taken = writer in waiting and bool(getattr(dut, f"{writer}_ready_o").value)
            assert taken == (writer == winner), (cycle, writer)
        if winner is not None:
            check(dut, waiting.pop(winner), size.simd)
            written[winner] += 1
    assert min(written.values()) > 50
