# SPDX-License-Identifier: Apache-2.0
"""Cycle-accurate simulation: the emitted SystemVerilog under Verilator, run by the unmodified driver through cocotb."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from codesign.engines import toolchain
from codesign.engines.build import build, check_command, last_line
from codesign.engines.engine import Engine, Output, Profile, Request, output_bytes, task_of
from codesign.engines.toolchain import Command, Tool
from codesign.errors import CheckError
from codesign.schedule.isa import BEAT_BYTES, Status

_SECONDS_PER_RUN = 1800.0
_PATIENCE = 50
"""A run that takes this many times the cycles of a perfectly busy array hangs."""
_PATIENCE_CYCLES = 500_000


class _RunResult(BaseModel):
    """One entry of a job's `results.json` (docs/bundle.md); beats are counted since the job began."""

    model_config = ConfigDict(frozen=True)
    run: int
    cycles: int
    status: int
    instruction_cycles: tuple[int, ...]
    beats_read0: int
    beats_read1: int
    beats_written1: int


_RESULTS = TypeAdapter(tuple[_RunResult, ...])


def run(request: Request) -> list[Output]:
    """Build once, then split the runs over up to `jobs` simulations. Raises CheckError when the machine faults."""
    build(request.bundle, Engine.RTLSIM, (Tool.MAKE, Tool.GXX, Tool.VERILATOR))
    parts = [range(first, len(request.runs), request.jobs) for first in range(min(request.jobs, len(request.runs)))]
    commands = [_command(request, part, request.work / f"job{number}") for number, part in enumerate(parts)]

    def poll() -> None:
        request.progress(len(list(request.work.glob("job*/*.bin"))), len(request.runs))

    completed = toolchain.run_all(commands, request.jobs, poll)
    outputs: dict[int, Output] = {}
    for number, part in enumerate(parts):
        last_line(completed[number], "simulating the RTL")
        outputs.update(zip(part, _outputs(request, part, request.work / f"job{number}"), strict=True))
    return [outputs[index] for index in range(len(request.runs))]


def _command(request: Request, part: range, folder: Path) -> Command:
    """The job of runs `part`, leaving its results in `folder`."""
    folder.mkdir()
    runs = [
        {"image": r.image, "task": r.task, "width": r.width.value, "traced": request.traced}
        for r in (request.runs[i] for i in part)
    ]
    job = {
        "bundle": str(request.bundle.path),
        "images": str(request.images_path.resolve()),
        "runs": runs,
        "results": str(folder),
        "seed": 1,
        "stall_percent": 0,
        "timeout_cycles": _timeout_cycles(request, part),
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    return check_command(request.bundle, ("job", str(path)), folder / "check.log", _SECONDS_PER_RUN * len(part))


def _timeout_cycles(request: Request, part: range) -> int:
    macs = max(task_of(request, i).macs for i in part)
    return _PATIENCE_CYCLES + _PATIENCE * macs // request.bundle.peak_macs_per_cycle


def _outputs(request: Request, part: range, folder: Path) -> list[Output]:
    try:
        results = _RESULTS.validate_json((folder / "results.json").read_bytes())
    except (OSError, ValidationError):
        raise CheckError(f"the RTL simulation must leave results in {folder}, and it did not; read its log") from None
    if tuple(one.run for one in results) != tuple(range(len(part))):
        raise CheckError(
            f"the RTL simulation must report {len(part)} runs, not {len(results)}; read the log in {folder}"
        )
    outputs, read, written = [], 0, 0
    for one, index in zip(results, part, strict=True):
        if one.status != Status.OK:
            raise CheckError(f"the machine must end with status OK, not {Status(one.status).name}, in run {index}")
        total = one.beats_read0 + one.beats_read1
        profile = Profile(
            one.instruction_cycles, (total - read) * BEAT_BYTES, (one.beats_written1 - written) * BEAT_BYTES
        )
        read, written = total, one.beats_written1
        outputs.append(Output(output_bytes(request, index, folder / f"{one.run}.bin"), one.cycles, profile))
    return outputs
