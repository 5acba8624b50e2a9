# SPDX-License-Identifier: Apache-2.0
"""act_memory and res_memory against arrays: random windows, masks and collisions in every cycle."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
import numpy as np
import pytest
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly
from unit import SIZES, Unit, run, size_under_test

UNIT = Unit("tb_act_memory", ("tdp_ram", "sdp_ram", "act_memory", "res_memory"))
ACT_LATENCY, MEM_LATENCY = 3, 2


@pytest.mark.parametrize("name", SIZES)
def test_act_memory(name: str) -> None:
    run(UNIT, name, "test_act_memory")


def idle(dut: Any) -> None:
    for name in ("a_ren_i", "b_req_i", "w_valid_i", "res_a_ren_i", "res_b_ren_i", "res_we_i"):
        getattr(dut, name).value = 0


@cocotb.test()
async def windows(dut: Any) -> None:
    """Reads see every earlier write at any granule, lanes outside the mask keep; writes send reads B to port A."""
    size, rng = size_under_test(), random.Random(1)
    lanes, granules = size.simd, size.simd // 16
    flat = np.array([rng.randrange(256) for _ in range(size.act_words * lanes)], dtype=np.uint8)
    idle(dut)
    Clock(dut.clk_i, 2, unit="ns").start()
    await FallingEdge(dut.clk_i)
    dut.w_valid_i.value, dut.w_granule_i.value, dut.w_mask_i.value = 1, 0, (1 << lanes) - 1
    for at in range(size.act_words):
        dut.w_word_i.value = at
        dut.w_data_i.value = int.from_bytes(flat[at * lanes : (at + 1) * lanes].tobytes(), "little")
        await FallingEdge(dut.clk_i)
    due: dict[str, deque[tuple[int, bytes]]] = {"a": deque(), "b": deque()}
    last: dict[str, bytes] = {}
    reads = {"a": 0, "b": 0}
    borrowed = False  # a read B has been on port A: its data no longer hold
    hot = [rng.randrange(size.act_words - 1) for _ in range(4)]  # few words: reads soon after writes
    for cycle in range(4000):
        for port, queue in due.items():
            fresh = bool(queue) and queue[0][0] == cycle
            if fresh:
                last[port] = queue.popleft()[1]
                reads[port] += 1
            if fresh or (port == "a" and port in last and not borrowed):  # data hold until the next read's
                assert int(getattr(dut, f"{port}_data_o").value) == int.from_bytes(last[port], "little"), (port, cycle)
        busy = 0.5 if cycle < 2000 else 1.0
        word = {p: rng.choice([*hot, rng.randrange(size.act_words - 1)]) for p in "abw"}
        granule = {p: rng.randrange(granules) for p in "abw"}
        active = {p: rng.random() < busy for p in "ab"} | {"w": rng.random() < 0.4}
        if active["w"] and abs(word["w"] - word["a"]) < 2:
            active["a"] = False  # a lane that is written in the same cycle is undefined
        if active["w"] and abs(word["w"] - word["b"]) < 2:
            active["b"] = False
        dut.a_ren_i.value, dut.b_req_i.value, dut.w_valid_i.value = (int(active[p]) for p in "abw")
        for p in "abw":
            getattr(dut, f"{p}_word_i").value = word[p]
            getattr(dut, f"{p}_granule_i").value = granule[p]
        mask = rng.choice([rng.getrandbits(lanes), (1 << lanes) - 1, (1 << size.pe) - 1])
        data = rng.randbytes(lanes)
        dut.w_mask_i.value, dut.w_data_i.value = mask, int.from_bytes(data, "little")
        await ReadOnly()
        ready = not (active["w"] and active["a"])
        assert int(dut.b_ready_o.value) == int(ready)
        granted = active["b"] and ready
        borrowed = borrowed or (granted and active["w"])
        for p, taken in (("a", active["a"]), ("b", granted)):
            if taken:
                at = word[p] * lanes + 16 * granule[p]
                due[p].append((cycle + ACT_LATENCY, flat[at : at + lanes].tobytes()))
        if active["w"]:
            for lane in range(lanes):
                if mask >> lane & 1:
                    flat[word["w"] * lanes + 16 * granule["w"] + lane] = data[lane]
        await FallingEdge(dut.clk_i)
    assert min(reads.values()) > 1000


@cocotb.test()
async def residual(dut: Any) -> None:
    """Two independent reads and a write a cycle; a read in the cycle of a write to its word gives the old word."""
    size, rng = size_under_test(), random.Random(2)
    bits = 16 * size.pe
    words = [rng.getrandbits(bits) for _ in range(size.res_words)]
    idle(dut)
    Clock(dut.clk_i, 2, unit="ns").start()
    await FallingEdge(dut.clk_i)
    dut.res_we_i.value = 1
    for i in range(size.res_words):
        dut.res_waddr_i.value, dut.res_wdata_i.value = i, words[i]
        await FallingEdge(dut.clk_i)
    due: dict[str, deque[tuple[int, int]]] = {"a": deque(), "b": deque()}
    for cycle in range(2000):
        for port, queue in due.items():
            if queue and queue[0][0] == cycle:
                assert int(getattr(dut, f"res_{port}_data_o").value) == queue.popleft()[1]
        for port, queue in due.items():
            active, at = rng.random() < 0.8, rng.randrange(10)
            getattr(dut, f"res_{port}_ren_i").value = int(active)
            getattr(dut, f"res_{port}_addr_i").value = at
            if active:
                queue.append((cycle + MEM_LATENCY, words[at]))
        write, at, word = rng.random() < 0.5, rng.randrange(10), rng.getrandbits(bits)
        dut.res_we_i.value, dut.res_waddr_i.value, dut.res_wdata_i.value = int(write), at, word
        if write:
            words[at] = word
        await FallingEdge(dut.clk_i)
