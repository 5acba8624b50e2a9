# SPDX-License-Identifier: Apache-2.0
"""Cycle-accurate simulation: the emitted SystemVerilog under Verilator, run by the unmodified driver through cocotb."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from codesign.engines import toolchain
from codesign.engines.build import build, check_command, last_line
from codesign.engines.engine import Engine, Output, Profile, Request, output_bytes, task_of
from codesign.engines.timeline import parse_trace, perfetto
from codesign.engines.toolchain import Command, Completed, Tool
from codesign.errors import CheckError
from codesign.schedule.isa import BEAT_BYTES, Status

_SECONDS_PER_RUN = 1800.0
_PATIENCE = 50
"""A run that takes this many times the cycles of a perfectly busy array hangs."""
_PATIENCE_CYCLES = 500_000


class _RunResult(BaseModel):
    """One entry of a job's `results.json` (docs/bundle.md)."""

    model_config = ConfigDict(frozen=True)
    run: int
    cycles: int
    status: int
    message: str
    instruction_cycles: tuple[int, ...]
    read_beats: tuple[int, ...]
    write_beats: tuple[int, ...]
    dense_slots: int
    score_slots: int
    mix_slots: int
    wait_blocks_cycles: int
    wait_rows_cycles: int
    kv_words: int


_RESULTS = TypeAdapter(tuple[_RunResult, ...])


def run(request: Request) -> list[Output]:
    """Build once, then split the runs over up to `jobs` simulations. Raises CheckError when the machine faults."""
    if request.waves is None:  # waves need a build of their own, which the job makes
        build(request.bundle, Engine.RTLSIM, (Tool.MAKE, Tool.GXX, Tool.VERILATOR))
    parts = [range(first, len(request.runs), request.jobs) for first in range(min(request.jobs, len(request.runs)))]
    commands = [_command(request, part, request.work / f"job{number}") for number, part in enumerate(parts)]

    def poll() -> None:
        request.progress(len(list(request.work.glob("job*/*.bin"))), len(request.runs))

    completed = toolchain.run_all(commands, request.jobs, poll)
    outputs: dict[int, Output] = {}
    for number, part in enumerate(parts):
        last_line(_with_log(request, completed[number], request.work / f"job{number}"), "simulating the RTL")
        outputs.update(zip(part, _outputs(request, part, request.work / f"job{number}"), strict=True))
    if request.perfetto is not None:
        _write_timeline(request, outputs[0].trace, request.perfetto)
    return [outputs[index] for index in range(len(request.runs))]


def _with_log(request: Request, completed: Completed, folder: Path) -> Completed:
    """The same, and of a job that failed the log at a place that stays."""
    log, kept = folder / "rtlsim.log", request.bundle.path / "build" / "rtlsim.log"
    if not completed.status or not log.is_file():
        return completed
    log.replace(kept)
    return Completed(completed.status, tuple(line.replace(str(log), str(kept)) for line in completed.tail))


def _first_runs(request: Request) -> frozenset[int]:
    """The runs whose timeline is kept: the first of each task; of a traced Program only where one is asked for."""
    if request.traced and request.perfetto is None:
        return frozenset()
    tasks = [run.task for run in request.runs]
    return frozenset(tasks.index(task) for task in tasks)


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
    if _first_runs(request) & set(part):
        job["trace"] = str(folder)
    if request.waves is not None:
        job["waves"] = str(request.waves)
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
    outputs = []
    for one, index in zip(results, part, strict=True):
        if one.status != Status.OK:
            raise CheckError(f"the machine must end with status OK, not {Status(one.status).name}: {one.message}")
        profile = Profile(
            one.instruction_cycles,
            sum(one.read_beats) * BEAT_BYTES,
            sum(one.write_beats) * BEAT_BYTES,
            one.dense_slots,
            one.score_slots + one.mix_slots,
            one.wait_blocks_cycles,
            one.wait_rows_cycles,
            one.kv_words,
        )
        trace = _trace(folder / f"{one.run}.trace") if index in _first_runs(request) else None
        outputs.append(Output(output_bytes(request, index, folder / f"{one.run}.bin"), one.cycles, profile, trace))
    return outputs


def _trace(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        raise CheckError(f"the RTL simulation must leave a trace in {file}, and it did not; read its log") from None


def _write_timeline(request: Request, text: str | None, to: Path) -> None:
    """The first run's timeline."""
    task = task_of(request, 0)
    trace = parse_trace(text or "")
    temporary = to.with_name(f".{to.name}.part")
    temporary.write_text(perfetto(trace, task.instructions, request.bundle.manifest.clock_mhz), encoding="utf-8")
    temporary.replace(to)
