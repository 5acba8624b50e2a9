#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds and runs this bundle's machine and compares it with `data/golden_<task>.npy`.

    python sim/check.py csim     C++, compiled with g++
    python sim/check.py rtlsim   SystemVerilog, cycle by cycle, with Verilator and cocotb
    python sim/check.py build ENGINE     only build (rtlsim: --variant waves or coverage as well)
    python sim/check.py job FILE         run one rtlsim job (docs/bundle.md in the codesign project)
    python sim/check.py coverage FILE... merge coverage files of jobs and print the share covered of each module

Needs Python, NumPy, g++, make, and for rtlsim the packages in requirements.txt; nothing of codesign.
Exit status: 0 equal, 1 different, 2 something is missing or does not build.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cover
import numpy as np
import numpy.typing as npt
from building import BUILD, BUNDLE, ENGINES, TOPLEVEL, VARIANTS, Failure, build, call, first_error

RUN_SECONDS = 3600


@dataclass(frozen=True)
class Run:
    """One image through one task at a width of its experts."""

    image: int
    task: str
    width: str


def main() -> int:
    """Parse the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for engine in ENGINES:
        command = commands.add_parser(engine)
        command.add_argument("--images", type=int, help="compare the first N images only")
        command.add_argument("--jobs", type=int, default=2, help="processes side by side (default 2)")
    command = commands.add_parser("build")
    command.add_argument("engine", choices=ENGINES)
    command.add_argument("--variant", choices=VARIANTS, default="plain", help="of rtlsim (default plain)")
    commands.add_parser("job").add_argument("file", type=Path)
    commands.add_parser("coverage").add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    try:
        if arguments.command == "build":
            print(build(arguments.engine, arguments.variant))
            return 0
        if arguments.command == "job":
            run_job(arguments.file)
            return 0
        if arguments.command == "coverage":
            print(coverage(arguments.files))
            return 0
        return check(arguments.command, arguments.images, max(1, arguments.jobs))
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130


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
    return buffer.tobytes().ljust(spec["bytes"], b"\0")


def striped(lines: bytes, ports: int) -> bytes:
    """Line-ordered bytes as they lie in a buffer: stripe after stripe, one for each port."""
    return np.frombuffer(lines, np.uint8).reshape(-1, ports, 16).transpose(1, 0, 2).tobytes()


def unstriped(buffer: bytes, ports: int) -> bytes:
    """The inverse of `striped`."""
    return np.frombuffer(buffer, np.uint8).reshape(ports, -1, 16).transpose(1, 0, 2).tobytes()


def run_csim(runs: list[Run], work: Path) -> None:
    """Leaves `<index>.bin`, the output buffer in line order, in `work` for every run."""
    executable, facts = build("csim"), manifest()
    ports = facts["machine"]["ports"]
    images = np.load(BUNDLE / "data" / "images.npy")
    for index, run in enumerate(runs):
        task, inputs, output = task_of(facts, run), work / "input.bin", work / f"{index}.bin"
        inputs.write_bytes(striped(input_buffer(images[run.image], facts["image"]), ports))
        numbers = (task["program_addr"], task["num_instructions"], inputs.stat().st_size, task["output_bytes"], 1)
        memory = BUNDLE / facts["memory"]["file"]
        command = [str(executable), str(memory), str(inputs), str(output), *map(str, numbers)]
        call(command, work / "csim.log", RUN_SECONDS, dict(os.environ))
        output.write_bytes(unstriped(output.read_bytes(), ports))


def task_of(facts: dict[str, Any], run: Run) -> dict[str, Any]:
    """The manifest's entry of a run."""
    found: dict[str, Any] = next(t for t in facts["tasks"] if (t["name"], t["width"]) == (run.task, run.width))
    return found


def run_rtlsim(runs: list[Run], work: Path) -> None:
    """As `run_csim`, through one cocotb job."""
    job = work / "job.json"
    facts = {
        "bundle": str(BUNDLE),
        "images": str(BUNDLE / "data" / "images.npy"),
        "runs": [{"image": run.image, "task": run.task, "width": run.width, "traced": False} for run in runs],
        "results": str(work),
        "seed": 1,
        "stall_percent": 0,
    }
    job.write_text(json.dumps(facts))
    run_job(job)


def run_job(job: Path) -> None:
    """Run one job with the built model; Failure when it leaves no results."""
    facts = json.loads(job.read_text())
    variant = "waves" if facts.get("waves") else "coverage" if facts.get("coverage") else "plain"
    executable = build("rtlsim", variant)
    results = Path(facts["results"])
    results.mkdir(parents=True, exist_ok=True)
    if facts.get("trace"):
        Path(facts["trace"]).mkdir(parents=True, exist_ok=True)
    start = 0 if variant == "coverage" else 2  # a random first value would count as a toggle, and as a state
    seeds = [f"+verilator+rand+reset+{start}", f"+verilator+seed+{facts['seed'] + 1}"]
    options = ["--trace", "--trace-file", str(Path(facts["waves"]).resolve())] if variant == "waves" else []
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
    call([str(executable), *options, *seeds], log, RUN_SECONDS, environment, results)
    if not (results / "results.json").is_file():
        raise Failure(f"the simulation must leave results, and it did not: {first_error(log)}; see {log}")


def coverage(files: list[Path]) -> str:
    """A table of what the jobs that left these files have covered."""
    try:
        return cover.table(cover.read(files))
    except (OSError, ValueError) as error:
        raise Failure(str(error)) from None


# ---- comparing ----


def check(engine: str, count: int | None, jobs: int) -> int:
    """Run the bundle's images through every task and compare; returns the exit status."""
    facts, started = manifest(), time.monotonic()
    golden = {(t["name"], t["width"]): np.load(golden_file(t["name"], t["width"])) for t in facts["tasks"]}
    total = len(next(iter(golden.values())))
    images = range(total if count is None else min(count, total))
    runs = [Run(image, *task) for task in golden for image in images]
    build(engine)
    BUILD.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{engine}-", dir=BUILD))
    parts = [runs[i::jobs] for i in range(jobs) if runs[i::jobs]]
    run_parts(engine, parts, work)
    different = 0
    for folder, part in enumerate(parts):
        for index, run in enumerate(part):
            found = np.frombuffer((work / str(folder) / f"{index}.bin").read_bytes(), np.uint8)
            different += report_difference(facts, run, golden[run.task, run.width][run.image], found)
    verdict = "bit exact" if not different else f"{different} DIFFERENT"
    print(f"{engine}: {len(runs)} runs, {verdict}, {time.monotonic() - started:.1f} s")
    if not different:
        shutil.rmtree(work)
    return 1 if different else 0


def golden_file(task: str, width: str) -> Path:
    """The expected output buffers, in line order, of a task at a width."""
    return BUNDLE / "data" / (f"golden_{task}.npy" if width == "stored" else f"golden_{task}_{width}.npy")


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
    found = found[: expected.size]  # behind the result lie the rows that a tiled Program spills
    if np.array_equal(expected, found):
        return False
    where = f"task {run.task} ({run.width}), image {run.image}"
    if expected.shape != found.shape:
        print(f"{where}: {found.size} bytes, expected {expected.size}")
        return True
    result = task_of(facts, run)["result"]
    first = int(np.flatnonzero(expected != found)[0])
    dtype = np.dtype(result["dtype"]).newbyteorder("<")
    element = (first - result["offset"]) // dtype.itemsize
    row, column = divmod(element, result["row_elements"])
    wanted, got = (b[result["offset"] :].view(dtype)[element] for b in (expected, found))
    print(f"{where}: {result['tensor']}[{row}, {column}] is {got}, expected {wanted}")
    return True


if __name__ == "__main__":
    sys.exit(main())
