# SPDX-License-Identifier: Apache-2.0
"""The register file against cocotbext-axi's AXI4-Lite master, with random pauses on every channel."""

from __future__ import annotations

import itertools
import logging
import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster
from control_bench import SIZES
from unit import Unit, run

from codesign.schedule import isa

SIZE = SIZES["simd16"]
OFFSET = {r.name: r.offset for r in isa.REGISTERS}
HOST = [r for r in isa.REGISTERS if r.host_writes]
CONSTANTS = {"magic": isa.MAGIC, "isa_version": isa.ISA_VERSION, "design_hash": SIZE.hash32()}


def test_axil_regs() -> None:
    run(Unit("axil_regs"), "simd16", "test_axil_regs", SIZE)


async def start(dut: Any, seed: int) -> AxiLiteMaster:
    """Clock, reset, and a master that pauses at random on the channels it drives and reads."""
    logging.getLogger("cocotb.axil_regs").setLevel(logging.WARNING)
    rng = random.Random(seed)
    Clock(dut.clk_i, 2, "ns").start()
    for name in ("done_i", "status_i", "cycles_i", "fault_i", "unit_state_i", "rst_ni"):
        getattr(dut, name).value = 0
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk_i, dut.rst_ni, reset_active_level=False)
    write, read = master.write_if, master.read_if
    for channel in (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel):
        pauses = [rng.random() < 0.4 for _ in range(101)]
        channel.set_pause_generator(itertools.cycle(pauses))
    await ClockCycles(dut.clk_i, 5)
    dut.rst_ni.value = 1
    await ClockCycles(dut.clk_i, 2)
    return master


async def done(dut: Any) -> None:
    """The machine says done for one cycle."""
    await RisingEdge(dut.clk_i)
    dut.done_i.value = 1
    await RisingEdge(dut.clk_i)
    dut.done_i.value = 0
    await ClockCycles(dut.clk_i, 2)


@cocotb.test()
async def host_registers_keep_what_was_written(dut: Any) -> None:
    """Whole words and single bytes, in any order; every register has a place of its own."""
    master, rng = await start(dut, 1), random.Random(2)
    model: dict[int, int] = {r.offset + i: 0 for r in HOST for i in range(r.bit_width // 8)}
    for _ in range(150):
        register = rng.choice(HOST)
        size = rng.choice([1, 2, 4, register.bit_width // 8])
        at = register.offset + rng.randrange(0, register.bit_width // 8 - size + 1)
        data = rng.randbytes(size)
        await master.write(at, data)
        model.update({at + i: byte for i, byte in enumerate(data)})
    for register in HOST:
        size = register.bit_width // 8
        value = bytes(model[register.offset + i] for i in range(size))
        assert (await master.read(register.offset, size)).data == value, register.name
        assert int(getattr(dut, f"{register.name}_o").value) == int.from_bytes(value, "little")
    reported = {r.name for r in isa.REGISTERS if not r.host_writes} - set(CONSTANTS)
    assert reported == {"status", "cycles", "fault", "unit_state"}
    for _ in range(3):  # writes elsewhere change nothing
        for name in CONSTANTS:
            await master.write(OFFSET[name], rng.randbytes(4))
    for name, value in CONSTANTS.items():
        assert await master.read_dword(OFFSET[name]) == value
    for hole in (0x18, 0xFC):  # no register has this address
        assert await master.read_dword(hole) == 0


@cocotb.test()
async def start_lasts_until_done(dut: Any) -> None:
    """CTRL as `ap_ctrl_hs`: start until done, idle meanwhile low, done and ready clear when they are read."""
    master = await start(dut, 3)
    assert await master.read_dword(isa.CTRL_OFFSET) == isa.CTRL_IDLE
    await master.write_dword(isa.CTRL_OFFSET, 0)
    assert int(dut.start_o.value) == 0
    await master.write_dword(isa.CTRL_OFFSET, isa.CTRL_START)
    assert int(dut.start_o.value) == 1
    assert await master.read_dword(isa.CTRL_OFFSET) == isa.CTRL_START
    await done(dut)
    assert int(dut.start_o.value) == 0
    assert await master.read_dword(isa.CTRL_OFFSET) == isa.CTRL_DONE | isa.CTRL_IDLE | isa.CTRL_READY
    assert await master.read_dword(isa.CTRL_OFFSET) == isa.CTRL_IDLE


@cocotb.test()
async def the_machine_reports(dut: Any) -> None:
    """Each register of the machine's shows its own input."""
    master, rng = await start(dut, 7), random.Random(8)
    for status in isa.Status:
        report = {"status": int(status), **{name: rng.getrandbits(32) for name in ("cycles", "fault", "unit_state")}}
        for name, value in report.items():
            getattr(dut, f"{name}_i").value = value
        for name, value in report.items():
            assert await master.read_dword(OFFSET[name]) == value


@cocotb.test()
async def interrupt_follows_its_three_registers(dut: Any) -> None:
    """ISR takes done only where IER allows, toggles when written, and reaches the pin through GIER."""
    master = await start(dut, 4)
    await done(dut)
    assert await master.read_dword(isa.ISR_OFFSET) == 0
    await master.write_dword(isa.IER_OFFSET, 1)
    await done(dut)
    assert await master.read_dword(isa.ISR_OFFSET) == 1
    assert int(dut.interrupt_o.value) == 0
    await master.write_dword(isa.GIER_OFFSET, 1)
    assert int(dut.interrupt_o.value) == 1
    await master.write_dword(isa.ISR_OFFSET, 1)
    assert int(dut.interrupt_o.value) == 0
    assert await master.read_dword(isa.ISR_OFFSET) == 0
    await done(dut)
    assert int(dut.interrupt_o.value) == 1
    assert [await master.read_dword(o) for o in (isa.GIER_OFFSET, isa.IER_OFFSET, isa.ISR_OFFSET)] == [1, 1, 1]


@cocotb.test()
async def done_is_never_lost(dut: Any) -> None:
    """Polling sees each done exactly once, whatever cycle it comes in."""
    master, rng = await start(dut, 5), random.Random(6)
    for _ in range(60):
        await master.write_dword(isa.CTRL_OFFSET, isa.CTRL_START)
        pending = cocotb.start_soon(_done_after(dut, rng.randrange(12)))
        while not await master.read_dword(isa.CTRL_OFFSET) & isa.CTRL_DONE:
            pass
        await pending
        assert int(dut.start_o.value) == 0
        assert await master.read_dword(isa.CTRL_OFFSET) == isa.CTRL_IDLE


async def _done_after(dut: Any, cycles: int) -> None:
    await ClockCycles(dut.clk_i, cycles + 1)
    await done(dut)
