# SPDX-License-Identifier: Apache-2.0
"""Clock and reset, for the benches inside a simulation."""

from __future__ import annotations

from typing import Any

from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge


async def start_in_reset(dut: Any) -> None:
    """Starts the clock, holds the reset for four cycles and returns at a falling edge, one cycle out of it."""
    dut.rst_ni.value = 0
    Clock(dut.clk_i, 2, unit="ns").start()
    await ClockCycles(dut.clk_i, 4)
    await FallingEdge(dut.clk_i)
    dut.rst_ni.value = 1
    await FallingEdge(dut.clk_i)
