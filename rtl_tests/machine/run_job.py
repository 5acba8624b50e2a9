# SPDX-License-Identifier: Apache-2.0
"""cocotb test that runs a job (docs/bundle.md) on the simulated machine through the bundle's own, unmodified driver.

The driver runs in a thread (cocotb's bridge); each register access becomes a few clock cycles, and while the machine
computes Python sleeps until the interrupt. Results go to `<results>/<run>.bin` and `<results>/results.json`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer

CLOCK_NS = 2
DRAM_BASE = 0x8_0000_0000  # above 4 GiB: both halves of every address register count
DRAM_BYTES = 64 << 20
DRAM_LATENCY = 40  # cycles
PAGE = 4096


class Dram:
    """The memory that dram.cpp answers from, and an allocator of page-aligned buffers in it."""

    def __init__(self, path: Path, seed: int, stall_percent: int) -> None:
        with path.open("wb") as f:
            f.truncate(DRAM_BYTES)
        os.environ["CODESIGN_DRAM_FILE"] = str(path)
        os.environ["CODESIGN_DRAM_BASE"] = str(DRAM_BASE)
        os.environ["CODESIGN_DRAM_LATENCY"] = str(DRAM_LATENCY)
        os.environ["CODESIGN_DRAM_STALL"] = str(stall_percent)
        os.environ["CODESIGN_DRAM_SEED"] = str(seed)
        self.bytes = np.memmap(path, dtype=np.uint8, mode="r+")
        self._next = 0

    def allocate(self, shape: tuple[int, ...], dtype: Any = np.uint8) -> Buffer:
        """As `pynq.allocate`."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        start, self._next = self._next, -(-(self._next + size) // PAGE) * PAGE
        if self._next > len(self.bytes):
            raise MemoryError(f"simulated DRAM has {len(self.bytes)} bytes, not {self._next}")
        buffer = self.bytes[start : start + size].view(dtype).reshape(shape).view(Buffer)
        buffer.physical_address = DRAM_BASE + start
        return buffer


class Buffer(np.ndarray):
    """As `pynq.buffer.PynqBuffer`. The simulated machine and Python share the bytes: nothing to flush."""

    physical_address: int

    def flush(self) -> None:
        """Nothing to do."""

    def invalidate(self) -> None:
        """Nothing to do."""

    def freebuffer(self) -> None:
        """Nothing to do: the file goes with the job."""


class AxiLite:
    """A small AXI4-Lite master: one access at a time, no coroutine that runs between accesses."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        for name in ("awvalid", "wvalid", "bready", "arvalid", "rready", "awaddr", "wdata", "wstrb", "araddr"):
            getattr(dut, f"s_axil_{name}").value = 0

    async def write(self, offset: int, data: int) -> None:
        """One 32-bit write, address and data together."""
        d = self.dut
        d.s_axil_awaddr.value, d.s_axil_wdata.value, d.s_axil_wstrb.value = offset, data, 15
        d.s_axil_awvalid.value, d.s_axil_wvalid.value, d.s_axil_bready.value = 1, 1, 1
        while True:
            await RisingEdge(d.ap_clk)
            if d.s_axil_awready.value and d.s_axil_awvalid.value:
                d.s_axil_awvalid.value = 0
            if d.s_axil_wready.value and d.s_axil_wvalid.value:
                d.s_axil_wvalid.value = 0
            if d.s_axil_bvalid.value:
                break
        assert int(d.s_axil_bresp.value) == 0
        d.s_axil_bready.value = 0

    async def read(self, offset: int) -> int:
        """One 32-bit read."""
        d = self.dut
        d.s_axil_araddr.value, d.s_axil_arvalid.value, d.s_axil_rready.value = offset, 1, 1
        while True:
            await RisingEdge(d.ap_clk)
            if d.s_axil_arready.value and d.s_axil_arvalid.value:
                d.s_axil_arvalid.value = 0
            if d.s_axil_rvalid.value:
                break
        assert int(d.s_axil_rresp.value) == 0
        d.s_axil_rready.value = 0
        return int(d.s_axil_rdata.value)


class Mmio:
    """As `pynq.MMIO`, for the driver's thread."""

    def __init__(self, axil: AxiLite) -> None:
        self._read, self._write = resume(axil.read), resume(axil.write)

    def read(self, offset: int = 0) -> int:
        """One 32-bit read."""
        return self._read(offset)

    def write(self, offset: int, data: int) -> None:
        """One 32-bit write."""
        self._write(offset, data)


def load_driver(bundle: Path) -> ModuleType:
    """The bundle's driver as a module."""
    path = bundle / "driver" / "driver.py"
    spec = importlib.util.spec_from_file_location("codesign_driver", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def measured(dut: Any) -> dict[str, Any]:
    """Cycles of each instruction of the last run, and the beats moved since reset."""
    done = [int(dut.done_cycle[i].value) for i in range(int(dut.num_done.value))]
    ports = ("beats_read0", "beats_read1", "beats_written1")
    cycles = [after - before for before, after in zip([0, *done[:-1]], done, strict=True)] if done else []
    return {"instruction_cycles": cycles, **{port: int(getattr(dut, port).value) for port in ports}}


def run_all(dut: Any, job: dict[str, Any], dram: Dram, wait: Any) -> list[dict[str, Any]]:
    """Every run of the job, in the driver's thread."""
    driver = load_driver(Path(job["bundle"]))
    images = np.load(job["images"], allow_pickle=False)
    results = Path(job["results"])
    done = []
    with driver.Accelerator(job["bundle"], mmio=Mmio(AxiLite(dut)), allocate=dram.allocate, wait=wait) as accelerator:
        for number, run in enumerate(job["runs"]):
            status = 0
            try:
                raw = accelerator.run_raw(images[run["image"]], run["task"], traced=run["traced"])
                raw.tofile(results / f"{number}.bin")
            except driver.DriverError as error:
                if error.status == 0:
                    raise
                status = error.status
            facts = resume(_async(measured))(dut)
            done.append({"run": number, "cycles": accelerator.cycles, "status": status, **facts})
    return done


def _async(function: Any) -> Any:
    """The function as a coroutine: simulation handles are read from the simulator's thread only."""

    async def call(*args: Any) -> Any:
        return function(*args)

    return call


@cocotb.test()
async def run_job(dut: Any) -> None:
    """Runs `CODESIGN_JOB`."""
    job = json.loads(Path(os.environ["CODESIGN_JOB"]).read_text(encoding="utf-8"))
    results = Path(job["results"])
    results.mkdir(parents=True, exist_ok=True)
    timeout_ns = CLOCK_NS * int(job.get("timeout_cycles", 50_000_000))

    async def wait(_seconds: float) -> None:
        if not dut.interrupt.value:
            timeout = Timer(timeout_ns, "ns")
            if await First(RisingEdge(dut.interrupt), timeout) is timeout:
                raise TimeoutError(f"no interrupt within {timeout_ns // CLOCK_NS} cycles")

    with tempfile.NamedTemporaryFile(prefix="dram", dir=results) as file:
        dram = Dram(Path(file.name), int(job["seed"]), int(job["stall_percent"]))
        dut.ap_rst_n.value = 0
        Clock(dut.ap_clk, CLOCK_NS, "ns").start()
        await ClockCycles(dut.ap_clk, 4)
        dut.ap_rst_n.value = 1
        await ClockCycles(dut.ap_clk, 2)
        done = await bridge(run_all)(dut, job, dram, resume(wait))
    partial = results / "results.json.part"
    partial.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    partial.replace(results / "results.json")
