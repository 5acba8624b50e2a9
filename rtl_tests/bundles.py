# SPDX-License-Identifier: Apache-2.0
"""Small bundles around hand-built Programs: tests run the machine as users do, through sim/check.py and the driver."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from unit import COVERAGE

from codesign.emit import render_sv_package
from codesign.schedule import isa, striped
from codesign.schedule.board import load_board
from codesign.schedule.design import MachineSize
from tests.hls.programs import Ints, Job

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("CODESIGN_BUILD", ROOT / "build")) / "rtl_tests" / "machine"
WATCHDOG = 20_000
"""Cycles: no instruction of a case takes as long."""
BOARD = load_board("zcu104")
VARIANT = ("--variant", "coverage") if COVERAGE else ()
"""The build that jobs need, as an option of `check.py build`."""


@dataclass(frozen=True)
class Fault:
    """What the memory answers to one line of a space: "slverr", "decerr", "never" or "delay:cycles"."""

    space: isa.Space
    line: int
    access: str
    """r, w or rw."""
    response: str

    def entry(self, size: MachineSize) -> dict[str, Any]:
        """As a job has it; it is a beat of the last stripe, which a fault in the others would not test."""
        space = self.space.name.lower()
        return {
            "space": space, "stripe": size.ports - 1, "offset": self.line * isa.BEAT_BYTES, "bytes": isa.BEAT_BYTES,
            "access": self.access, "response": self.response,
        }  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A Program, what its STOREs must write, and the status it must end with."""

    name: str
    job: Job
    expected: tuple[Ints, ...]
    status: isa.Status = isa.Status.OK
    program_addr: int | None = None
    """Where the machine is told to look for the Program, if not where it lies."""
    fault: int | None = None
    """The instruction that the machine must name, where only one can be meant."""
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a run left behind; `raw` is the output buffer of a run that ended well."""

    report: dict[str, Any]
    raw: bytes


def write_bundle(folder: Path, size: MachineSize, cases: Sequence[Case]) -> None:
    """A bundle whose tasks are the cases, which share one memory image. Image i holds the input buffer of case i."""
    shutil.copytree(ROOT / "rtl", folder / "rtl")
    (folder / "rtl" / "codesign_pkg.sv").write_text(render_sv_package(size), encoding="utf-8")
    shutil.copytree(ROOT / "rtl_tests" / "machine", folder / "sim", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "driver").mkdir()
    shutil.copy(ROOT / "boards" / "zcu104" / "driver.py", folder / "driver")
    (folder / "data").mkdir()
    line = size.line_bytes
    programs = [case.job.append(case.job.memory, b"".join(case.job.instructions), line)[0] for case in cases]
    memory = striped(bytes(cases[0].job.memory), size.ports)
    (folder / "data" / "memory.bin").write_bytes(memory)
    width = max(line, *(len(case.job.inputs) for case in cases)) // line
    images = np.zeros((len(cases), 1, width, line), dtype=np.uint8)
    for image, case in zip(images, cases, strict=True):
        image.reshape(-1)[: len(case.job.inputs)] = np.frombuffer(case.job.inputs, dtype=np.uint8) ^ 0x80
    np.save(folder / "data" / "images.npy", images)
    machine = {name: getattr(value, "value", value) for name, value in asdict(size).items()}
    manifest = {
        "format": 2,
        "clock_mhz": BOARD.clock_mhz,
        "dram": BOARD.memory.model_dump(),
        "machine": {
            **machine, "design_hash": size.hash32(), "magic": isa.MAGIC, "isa_version": isa.ISA_VERSION,
        },
        "registers": [{"name": r.name, "offset": r.offset} for r in isa.REGISTERS],
        "unit_states": [{"name": name, "bits": bits} for name, bits in isa.UNIT_STATES],
        "image": {
            "height": 1, "width": width, "channels": line, "patch": 1, "pixel_offset": 128,
            "row_bytes": line, "bytes": width * line,
        },
        "memory": {"file": "data/memory.bin", "bytes": len(memory)},
        "tasks": [
            {
                "name": case.name, "width": "stored",
                "program_addr": address if case.program_addr is None else case.program_addr,
                "num_instructions": len(case.job.instructions),
                "output_bytes": line * max(1, case.job.output_lines),
            }
            for case, address in zip(cases, programs, strict=True)
        ],
        "files": [{"path": "data/memory.bin", "sha256": hashlib.sha256(memory).hexdigest()}],
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def share_build(folder: Path, machine: str) -> None:
    """Let the bundle build where all bundles of this machine do: a build depends on the sources alone (`building.py`).

    Programs and memory image stay the bundle's own, as tests of one machine run side by side.
    """
    kept = BUILD / machine
    kept.mkdir(parents=True, exist_ok=True)
    (folder / "build").symlink_to(kept, target_is_directory=True)


def check(folder: Path, *arguments: str) -> None:
    """The bundle's sim/check.py must succeed."""
    command = [sys.executable, str(folder / "sim" / "check.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def run_job(
    folder: Path,
    results: Path,
    size: MachineSize,
    cases: Sequence[Case],
    seed: int = 1,
    stall_percent: int = 0,
    **options: Any,
) -> list[Outcome]:
    """The cases of a bundle, one after the other on one machine. `options`: more entries of the job."""
    names = [t["name"] for t in json.loads((folder / "manifest.json").read_text())["tasks"]]
    results.mkdir()
    job = {
        "bundle": str(folder),
        "images": str(folder / "data" / "images.npy"),
        "runs": [
            {
                "image": names.index(case.name), "task": case.name, "traced": False,
                "faults": [fault.entry(size) for fault in case.faults],
            }
            for case in cases
        ],
        "results": str(results),
        "seed": seed,
        "stall_percent": stall_percent,
        "timeout_cycles": 200_000,
        "watchdog": WATCHDOG,
        **options,
    }  # fmt: skip
    if COVERAGE:
        job["coverage"] = True
    path = results / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    check(folder, "job", str(path))
    if COVERAGE:
        COVERAGE.mkdir(parents=True, exist_ok=True)
        shutil.copy(results / "coverage.dat", COVERAGE / f"{folder.name}-{results.name}.dat")
    reports = json.loads((results / "results.json").read_text())
    raws = [results / f"{i}.bin" for i in range(len(cases))]
    return [Outcome(r, f.read_bytes() if f.exists() else b"") for r, f in zip(reports, raws, strict=True)]


def stored(case: Case, raw: bytes) -> list[npt.NDArray[np.int64]]:
    """The tensors of a case's STOREs."""
    return [case.job.read(raw, line, slot) for line, slot in case.job.stored]
