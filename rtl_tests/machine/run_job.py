# SPDX-License-Identifier: Apache-2.0
"""cocotb test that runs a job (docs/bundle.md) on the simulated machine through the bundle's own, unmodified driver.

The driver runs in a thread (cocotb's bridge); each register access becomes a few clock cycles, and while the machine
computes Python sleeps until the interrupt. Results go to `<results>/<run>.bin` and `<results>/results.json`.

The memory is the board's, as the manifest has it, in cycles of the machine's clock (dram.cpp).
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer

CLOCK_NS = 2  # of the simulation's time; nothing depends on it
DRAM_BASE = 0x8_0000_0000  # above 4 GiB: both halves of every address register count
DRAM_BYTES = 1 << 30  # a sparse file
PAGE = 4096
CTRL_START = 1
TIMES = ("latency", "row_miss", "row_cycle", "turnaround", "refresh_interval", "refresh")


def dram_settings(memory: dict[str, Any], clock_mhz: float) -> dict[str, float]:
    """The memory of a board (manifest's `dram`) as dram.cpp wants it: cycles, bytes a cycle."""
    cycles = {name: memory[f"{name}_ns"] * clock_mhz / 1e3 for name in TIMES}
    # The efficiency counts refresh, which dram.cpp models.
    share = memory["efficiency"] / (1 - memory["refresh_ns"] / memory["refresh_interval_ns"])
    counts = {name: memory[name] for name in ("burst_beats", "outstanding", "banks", "page_bytes")}
    return {"rate": memory["peak_bytes_per_second"] * share / (clock_mhz * 1e6), **cycles, **counts}


class Dram:
    """The memory that dram.cpp answers from, and an allocator of page-aligned buffers in it."""

    def __init__(self, path: Path, settings: dict[str, float]) -> None:
        with path.open("wb") as f:
            f.truncate(DRAM_BYTES)
        self._settings = {**settings, "file": path, "base": DRAM_BASE, "size": DRAM_BYTES}
        self.bytes = np.memmap(path, dtype=np.uint8, mode="r+")
        self._next = 0

    def configure(self, seed: int, stall_percent: int, faults: list[str]) -> None:
        """What dram.cpp takes at reset and at the start of each run."""
        settings = {**self._settings, "seed": seed, "stall": stall_percent}
        words = [f"{name}={value}" for name, value in settings.items()] + [f"fault={fault}" for fault in faults]
        os.environ["CODESIGN_DRAM"] = " ".join(words)

    def allocate(self, shape: tuple[int, ...], dtype: Any = np.uint8) -> Buffer:
        """As `pynq.allocate`."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        start, self._next = self._next, -(-(self._next + size) // PAGE) * PAGE
        if self._next > len(self.bytes):
            raise MemoryError(f"simulated DRAM has {len(self.bytes)} bytes, not {self._next}")
        buffer: Buffer = self.bytes[start : start + size].view(dtype).reshape(shape).view(Buffer)
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
    """As `pynq.MMIO`, for the driver's thread. `start` is called right before the machine is started."""

    def __init__(self, axil: AxiLite, offsets: dict[str, int]) -> None:
        self._read, self._write = resume(axil.read), resume(axil.write)
        self._offsets = offsets
        self._words: dict[int, int] = {}
        self.start: Callable[[], None] = lambda: None

    def read(self, offset: int = 0) -> int:
        """One 32-bit read."""
        return self._read(offset)

    def write(self, offset: int, data: int) -> None:
        """One 32-bit write."""
        self._words[offset] = data
        if offset == 0 and data & CTRL_START:
            self.start()
        self._write(offset, data)

    def stripe(self, space: str, number: int) -> int:
        """The address of a stripe of a space, as the driver has written it last."""
        base, distance = self._offsets[f"{space}_base"], self._offsets[f"{space}_stripe"]
        return (self._words[base] | self._words[base + 4] << 32) + number * self._words[distance]


def fault_words(faults: list[dict[str, Any]], mmio: Mmio) -> list[str]:
    """A run's faults for dram.cpp: what happens at `bytes` bytes from byte `offset` of a stripe of a space."""
    words = []
    for fault in faults:
        first = mmio.stripe(fault["space"], fault["stripe"]) + fault["offset"]
        words.append(f"{fault['access']}:{first}:{fault['bytes']}:{fault['response']}")
    return words


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


class Runs:
    """Every run of a job, in the driver's thread."""

    def __init__(self, dut: Any, job: dict[str, Any], dram: Dram, wait: Any) -> None:
        self.dut, self.job, self.dram = dut, job, dram
        self.results = Path(job["results"])
        self.manifest = json.loads((Path(job["bundle"]) / "manifest.json").read_text(encoding="utf-8"))
        offsets = {r["name"]: r["offset"] for r in self.manifest["registers"]}
        self.mmio = Mmio(AxiLite(dut), offsets)
        self.mmio.start = self._starting
        self.wait, self.number = wait, 0
        self.faults: list[dict[str, Any]] = []
        self.driver = load_driver(Path(job["bundle"]))
        self.refusal: type[Exception] = self.driver.DriverError

    def _starting(self) -> None:
        """What dram.cpp and trace.cpp take when a run starts."""
        self.dram.configure(
            self.job["seed"] + self.number, self.job["stall_percent"], fault_words(self.faults, self.mmio)
        )
        os.environ["CODESIGN_REPORT"] = str(self.report)
        folder = self.job.get("trace")
        os.environ["CODESIGN_TRACE"] = str(Path(folder) / f"{self.number}.trace") if folder else ""

    @property
    def report(self) -> Path:
        """Where trace.cpp leaves the counters of a run."""
        return self.results / f"{self.number}.counters.json"

    def all(self) -> list[dict[str, Any]]:
        """Run after run, on one machine without a reset."""
        driver = self.driver
        images = np.load(self.job["images"], allow_pickle=False)
        options = {name: self.job[name] for name in ("watchdog",) if name in self.job}
        done = []
        with driver.Accelerator(
            self.job["bundle"], mmio=self.mmio, allocate=self.dram.allocate, wait=self.wait, **options
        ) as accelerator:
            for self.number, run in enumerate(self.job["runs"]):  # noqa: B020 - _starting wants to know
                self.faults = run.get("faults", [])
                done.append(self.one(driver, accelerator, images[run["image"]], run))
        return done

    def one(self, driver: ModuleType, accelerator: Any, image: Any, run: dict[str, Any]) -> dict[str, Any]:
        """One run: its entry of results.json; the output buffer goes to a file."""
        how = {"run": self.number, "status": 0, "fault": 0, "units": {}, "message": ""}
        try:
            raw = accelerator.run_raw(image, run["task"], traced=run["traced"], width=run.get("width", "stored"))
            raw.tofile(self.results / f"{self.number}.bin")
        except driver.DriverError as error:
            if error.status == 0:
                raise
            how.update(status=error.status, fault=error.fault, units=error.units, message=str(error))
        counters = json.loads(self.report.read_text(encoding="utf-8"))
        done = counters["complete_cycles"]
        cycles = [after - before for before, after in zip([0, *done[:-1]], done, strict=True)] if done else []
        return {**how, "cycles": accelerator.cycles, "instruction_cycles": cycles, **counters}


@cocotb.test()
async def run_job(dut: Any) -> None:
    """Runs `CODESIGN_JOB`."""
    job = json.loads(Path(os.environ["CODESIGN_JOB"]).read_text(encoding="utf-8"))
    results = Path(job["results"])
    results.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((Path(job["bundle"]) / "manifest.json").read_text(encoding="utf-8"))
    settings = dram_settings({**manifest["dram"], **job.get("dram", {})}, manifest["clock_mhz"])
    timeout_ns = CLOCK_NS * int(job.get("timeout_cycles", 50_000_000))

    async def wait(_seconds: float) -> None:
        if not dut.interrupt.value:
            timeout = Timer(timeout_ns, "ns")
            if await First(RisingEdge(dut.interrupt), timeout) is timeout:
                raise TimeoutError(f"no interrupt within {timeout_ns // CLOCK_NS} cycles")

    with tempfile.NamedTemporaryFile(prefix="dram", dir=results) as file:
        dram = Dram(Path(file.name), settings)
        dram.configure(job["seed"], job["stall_percent"], [])
        dut.ap_rst_n.value = 0
        Clock(dut.ap_clk, CLOCK_NS, "ns").start()
        await ClockCycles(dut.ap_clk, 4)
        dut.ap_rst_n.value = 1
        await ClockCycles(dut.ap_clk, 2)
        runs = Runs(dut, job, dram, resume(wait))
        try:
            done = await bridge(runs.all)()
        except runs.refusal as error:
            print(f"driver error: {error}", flush=True)  # the line of the log that check.py names
            raise
    partial = results / "results.json.part"
    partial.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    partial.replace(results / "results.json")
