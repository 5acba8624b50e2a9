# SPDX-License-Identifier: Apache-2.0
"""What a simulation found, and its place in the bundle: `results/<engine>.json`, `profile.json`, `timeline_*.trace`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from codesign.emit.manifest import ExpertWidth
from codesign.engines.bundle import Bundle
from codesign.engines.compare import Difference
from codesign.engines.engine import Engine, Output, Profile, Run
from codesign.engines.timeline import Trace, parse_trace
from codesign.errors import InputError, reason

RESULTS = "results"
_PROFILE = "profile.json"


@dataclass(frozen=True)
class TaskCycles:
    """Clock cycles of each image through one task."""

    task: str
    cycles: tuple[int, ...]


@dataclass(frozen=True)
class TaskProfile:
    """Means over the images of one task at one width of its experts; the fields are those of `Profile`."""

    task: str
    width: ExpertWidth
    instruction_cycles: tuple[float, ...]
    read_bytes: float
    written_bytes: float
    dense_slots: float
    attention_slots: float
    wait_blocks: float
    wait_rows: float
    kv_words: float


@dataclass(frozen=True)
class SimulationResult:
    """What a simulation found. `mismatches` holds the first difference of every run that has one."""

    engine: Engine
    images: int
    tasks: tuple[str, ...]
    mismatches: tuple[Difference, ...]
    cycles: tuple[TaskCycles, ...] | None
    """None where the engine counts no cycles."""
    macs: int
    """Multiply-accumulates of the model over all runs."""
    peak_macs_per_cycle: int
    seconds: float
    device: str | None = None
    """What computed, where that is not this processor."""

    @property
    def bit_exact(self) -> bool:
        """Every compared element is equal."""
        return not self.mismatches

    @property
    def macs_per_cycle(self) -> float | None:
        """Useful multiply-accumulates in a clock cycle."""
        if self.cycles is None:
            return None
        return self.macs / sum(sum(one.cycles) for one in self.cycles)

    @property
    def mac_utilisation(self) -> float | None:
        """Share of the array's peak that is useful work, 0..1."""
        return None if self.macs_per_cycle is None else self.macs_per_cycle / self.peak_macs_per_cycle

    def to_json(self) -> str:
        """The stable JSON form: `cycles` maps each task to a list with one entry per image."""
        cycles = None if self.cycles is None else {one.task: list(one.cycles) for one in self.cycles}
        content = {
            "engine": self.engine.value,
            "images": self.images,
            "tasks": list(self.tasks),
            "bit_exact": self.bit_exact,
            "mismatches": [asdict(one) for one in self.mismatches],
            "cycles": cycles,
            "macs": self.macs,
            "macs_per_cycle": self.macs_per_cycle,
            "mac_utilisation": self.mac_utilisation,
            "seconds": round(self.seconds, 3),
        }
        if self.device is not None:
            content["device"] = self.device
        return json.dumps(content, indent=1)


_DIFFERENCES = TypeAdapter(tuple[Difference, ...])
_CYCLES = TypeAdapter(dict[str, tuple[int, ...]] | None)
_PROFILES = TypeAdapter(tuple[TaskProfile, ...])


def keep_result(bundle: Bundle, result: SimulationResult) -> None:
    """Write the result into the bundle, whole or not at all."""
    _write(bundle, f"{result.engine.value}.json", result.to_json() + "\n")


def load_result(bundle: Bundle, engine: Engine) -> SimulationResult | None:
    """The last result of an engine, None when it never ran. Raises InputError for a damaged file."""
    file = bundle.path / RESULTS / f"{engine.value}.json"
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        cycles = _CYCLES.validate_python(content["cycles"])
        return SimulationResult(
            engine=Engine(content["engine"]),
            images=int(content["images"]),
            tasks=tuple(str(task) for task in content["tasks"]),
            mismatches=_DIFFERENCES.validate_python(content["mismatches"]),
            cycles=None if cycles is None else tuple(TaskCycles(task, per) for task, per in cycles.items()),
            macs=int(content["macs"]),
            peak_macs_per_cycle=bundle.peak_macs_per_cycle,
            seconds=float(content["seconds"]),
            device=str(content["device"]) if "device" in content else None,
        )
    except (OSError, ValueError, TypeError, KeyError):  # ValidationError and JSONDecodeError are ValueErrors
        raise InputError(f"{file} must be a result of codesign simulate; simulate on {engine.value} again") from None


def keep_profiles(bundle: Bundle, runs: Sequence[Run], outputs: Sequence[Output]) -> None:
    """Write the mean profile of each task, and the trace of its first run; nothing when the engine gave none."""
    profiles = []
    for task, width in dict.fromkeys((run.task, run.width) for run in runs):
        own = [output for run, output in zip(runs, outputs, strict=True) if run.task == task]
        given = [output.profile for output in own if output.profile is not None]
        if given:
            profiles.append(_mean(task, width, given))
        if own[0].trace is not None:
            _write(bundle, _trace_name(task), own[0].trace)
    if profiles:
        _write(bundle, _PROFILE, _PROFILES.dump_json(tuple(profiles), indent=1).decode("utf-8") + "\n")


def _mean(task: str, width: ExpertWidth, given: Sequence[Profile]) -> TaskProfile:
    def mean(values: Sequence[int]) -> float:
        return sum(values) / len(given)

    return TaskProfile(
        task,
        width,
        tuple(mean(each) for each in zip(*(p.instruction_cycles for p in given), strict=True)),
        mean([p.read_bytes for p in given]),
        mean([p.written_bytes for p in given]),
        mean([p.dense_slots for p in given]),
        mean([p.attention_slots for p in given]),
        mean([p.wait_blocks for p in given]),
        mean([p.wait_rows for p in given]),
        mean([p.kv_words for p in given]),
    )


def _trace_name(task: str) -> str:
    return f"timeline_{task}.trace"


def load_profiles(bundle: Bundle) -> tuple[TaskProfile, ...]:
    """The profiles of the last cycle-accurate simulation, empty when there was none. Raises InputError when damaged."""
    file = bundle.path / RESULTS / _PROFILE
    if not file.is_file():
        return ()
    try:
        profiles = _PROFILES.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        raise InputError(f"{file} must be a profile of codesign simulate; simulate on rtlsim again") from None
    for one in profiles:
        if len(one.instruction_cycles) != bundle.task(one.task, one.width).num_instructions:
            raise InputError(f"{file} must count every instruction of {one.task}; simulate on rtlsim again")
    return profiles


def load_trace(bundle: Bundle, profile: TaskProfile) -> Trace | None:
    """The trace of the first run of `profile`, None when there is none. Raises InputError for a damaged file."""
    file = bundle.path / RESULTS / _trace_name(profile.task)
    if not file.is_file():
        return None
    try:
        trace = parse_trace(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, InputError):
        raise InputError(f"{file} must be a trace of codesign simulate; simulate on rtlsim again") from None
    if not len(trace.dispatched) == len(trace.completed) == len(profile.instruction_cycles) or not trace.windows:
        raise InputError(f"{file} must show every instruction of {profile.task}; simulate on rtlsim again")
    return trace


def _write(bundle: Bundle, name: str, text: str) -> None:
    folder = bundle.path / RESULTS
    temporary = folder / f".{name}.{os.getpid()}"
    try:
        folder.mkdir(exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / name)
    except OSError as error:
        raise InputError(f"{folder} must be writable and have room: {reason(error)}; free some space") from None
    finally:
        _discard(temporary)


def _discard(file: Path) -> None:
    if file.exists():
        file.unlink()
