# SPDX-License-Identifier: Apache-2.0
"""Small bundles around hand-built Programs: tests run the machine as users do, through sim/check.py and the driver."""

from __future__ import annotations

import fcntl
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

from codesign.emit import render_sv_package
from codesign.schedule import isa
from codesign.schedule.design import MachineSize
from tests.hls.programs import Ints, Job

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("CODESIGN_BUILD", ROOT / "build")) / "rtl_tests" / "machine"
BEAT = isa.BEAT_BYTES


@dataclass(frozen=True)
class Case:
    """A Program, what its STOREs must write, and the status it must end with."""

    name: str
    job: Job
    expected: tuple[Ints, ...]
    status: isa.Status = isa.Status.OK
    program_addr: int | None = None
    """Where the machine is told to look for the Program, if not where it lies."""


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
    programs = [case.job.add(b"".join(case.job.instructions))[0] for case in cases]
    memory = bytes(cases[0].job.memory)
    (folder / "data" / "memory.bin").write_bytes(memory)
    width = max(1, *(len(case.job.inputs) // BEAT for case in cases))
    images = np.zeros((len(cases), 1, width, BEAT), dtype=np.uint8)
    for image, case in zip(images, cases, strict=True):
        image.reshape(-1)[: len(case.job.inputs)] = np.frombuffer(case.job.inputs, dtype=np.uint8) ^ 0x80
    np.save(folder / "data" / "images.npy", images)
    manifest = {
        "format": 1,
        "machine": {
            **asdict(size), "design_hash": size.hash32(), "magic": isa.MAGIC, "isa_version": isa.ISA_VERSION,
        },
        "registers": [{"name": r.name, "offset": r.offset} for r in isa.REGISTERS],
        "image": {
            "height": 1, "width": width, "channels": BEAT, "patch": 1, "pixel_offset": 128,
            "row_bytes": BEAT, "bytes": width * BEAT,
        },
        "memory": {"file": "data/memory.bin", "bytes": len(memory)},
        "tasks": [
            {
                "name": case.name, "program_addr": address if case.program_addr is None else case.program_addr,
                "num_instructions": len(case.job.instructions),
                "output_bytes": max(BEAT, case.job.output_beats * BEAT),
            }
            for case, address in zip(cases, programs, strict=True)
        ],
        "files": [{"path": "data/memory.bin", "sha256": hashlib.sha256(memory).hexdigest()}],
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def install(folder: Path, name: str) -> Path:
    """The bundle at a lasting place, where its build is kept: untouched when it is there already, in this very form."""
    place = BUILD / name
    place.mkdir(parents=True, exist_ok=True)
    with (BUILD / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted, found = _files(folder), _files(place)
        for path in found.keys() - wanted.keys():
            (place / path).unlink()
        for path in sorted(wanted):
            if wanted[path] != found.get(path):
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                (place / path).write_bytes(wanted[path])
    return place


def _files(folder: Path) -> dict[Path, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    relative = {p: p.relative_to(folder) for p in files}
    return {r: p.read_bytes() for p, r in relative.items() if r.parts[0] != "build"}


def check(folder: Path, *arguments: str) -> None:
    """The bundle's sim/check.py must succeed."""
    command = [sys.executable, str(folder / "sim" / "check.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def run_job(
    folder: Path, results: Path, tasks: Sequence[int], seed: int, stall_percent: int, timeout_cycles: int = 200_000
) -> list[Outcome]:
    """The cases `tasks` of a bundle, one after the other on one machine."""
    names = [t["name"] for t in json.loads((folder / "manifest.json").read_text())["tasks"]]
    results.mkdir()
    job = {
        "bundle": str(folder),
        "images": str(folder / "data" / "images.npy"),
        "runs": [{"image": i, "task": names[i], "traced": False} for i in tasks],
        "results": str(results),
        "seed": seed,
        "stall_percent": stall_percent,
        "timeout_cycles": timeout_cycles,
    }
    path = results / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    check(folder, "job", str(path))
    reports = json.loads((results / "results.json").read_text())
    raws = [results / f"{i}.bin" for i in range(len(tasks))]
    return [Outcome(r, f.read_bytes() if f.exists() else b"") for r, f in zip(reports, raws, strict=True)]


def stored(case: Case, raw: bytes) -> list[npt.NDArray[np.int64]]:
    """The tensors of a case's STOREs."""
    return [case.job.read(raw, beat, slot) for beat, slot in case.job.stored]
