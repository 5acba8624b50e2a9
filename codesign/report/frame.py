# SPDX-License-Identifier: Apache-2.0
"""One image through one task: its estimate, and what the last RTL simulation measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.emit.manifest import ExpertWidth, Task
from codesign.engines import (
    Bundle,
    InstructionEstimate,
    TaskEstimate,
    TaskProfile,
    Trace,
    estimate_bundle,
    load_profiles,
    load_trace,
)
from codesign.schedule.isa import Opcode

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spent:
    """Clock cycles, and what the array did in them; the rest of `cycles` it filled, drained or had nothing to do."""

    cycles: float
    slots: float
    wait_blocks: float
    wait_rows: float

    @property
    def other(self) -> float:
        """Pipelines that fill or drain, units without the array."""
        return max(0.0, self.cycles - self.slots - self.wait_blocks - self.wait_rows)


@dataclass(frozen=True)
class Frame:
    """`profile` and `trace` are None where no RTL simulation has measured the task."""

    task: Task
    estimate: TaskEstimate
    profile: TaskProfile | None
    trace: Trace | None

    @property
    def cycles(self) -> float:
        """Of the whole frame: the mean over the simulated images, else the estimate."""
        return float(self.estimate.cycles) if self.profile is None else sum(self.profile.instruction_cycles)

    @property
    def read_bytes(self) -> float:
        """Read from DRAM for the whole frame: simulated, else the estimate's."""
        if self.profile is not None:
            return self.profile.read_bytes
        return float(sum(row.read_bytes for row in self.estimate.instructions))

    @property
    def instruction_cycles(self) -> tuple[float, ...]:
        """Cycles that each instruction adds, as the estimate counts them: what a NORM takes, its successor waits.

        Those of the traced run, else the simulated mean, else the estimate.
        """
        if self.profile is None:
            return tuple(float(row.cycles) for row in self.estimate.instructions)
        spent = self.profile.instruction_cycles if self.trace is None else np.diff(self.trace.completed, prepend=0)
        return _folded(self.estimate.instructions, np.asarray(spent, dtype=np.float64))

    @property
    def spent(self) -> tuple[Spent, ...] | None:
        """Where the cycles of each instruction of the traced run went, counted as `instruction_cycles`."""
        if self.trace is None:
            return None
        ends = [0, *(w.end for w in self.trace.windows)]
        columns = []
        for counts in (
            [w.slots for w in self.trace.windows],
            [w.wait_blocks for w in self.trace.windows],
            [w.wait_rows for w in self.trace.windows],
        ):
            until = np.interp(self.trace.completed, ends, np.concatenate([[0], np.cumsum(counts)]))
            columns.append(_folded(self.estimate.instructions, np.diff(until, prepend=0)))
        return tuple(Spent(*each) for each in zip(self.instruction_cycles, *columns, strict=True))


@dataclass(frozen=True)
class Kind:
    """All instructions of a Program with one opcode that do the same in every block, for example `fc1`."""

    name: str
    opcode: Opcode
    estimates: tuple[InstructionEstimate, ...]
    cycles: float
    """Measured, else estimated."""
    spent: Spent | None

    @property
    def macs(self) -> int:
        """Multiply-accumulates that the model needs here."""
        return sum(one.macs for one in self.estimates)

    @property
    def read_bytes(self) -> int:
        """Read from DRAM."""
        return sum(one.read_bytes for one in self.estimates)


def read_frames(bundle: Bundle) -> tuple[Frame, ...]:
    """Every task of a bundle: the bundle's first image estimated, with what was simulated at the same expert width.

    Raises InputError for damaged results.
    """
    profiles = {profile.task: profile for profile in load_profiles(bundle)}
    width = next((profile.width for profile in profiles.values()), ExpertWidth.STORED)
    frames = []
    for one in estimate_bundle(bundle, 0, width).tasks:
        profile = profiles.get(one.task)
        trace = None if profile is None else load_trace(bundle, profile)
        frames.append(Frame(bundle.task(one.task, width), one, profile, trace))
    return tuple(frames)


def kinds(frame: Frame) -> tuple[Kind, ...]:
    """The kinds of instructions of a Program, those that take longest first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, row in enumerate(frame.estimate.instructions):
        groups.setdefault((row.name.rsplit(".", 1)[-1], row.opcode), []).append(index)
    cycles, spent = frame.instruction_cycles, frame.spent
    found = [
        Kind(
            name,
            Opcode[opcode],
            tuple(frame.estimate.instructions[i] for i in members),
            sum(cycles[i] for i in members),
            None if spent is None else total([spent[i] for i in members]),
        )
        for (name, opcode), members in groups.items()
    ]
    return tuple(sorted(found, key=lambda kind: -kind.cycles))


def total(parts: Sequence[Spent]) -> Spent:
    """The sum."""
    return Spent(
        sum(p.cycles for p in parts),
        sum(p.slots for p in parts),
        sum(p.wait_blocks for p in parts),
        sum(p.wait_rows for p in parts),
    )


def _folded(rows: Sequence[InstructionEstimate], values: Numbers) -> tuple[float, ...]:
    """Gives every NORM's value to the instruction after it."""
    folded: list[float] = []
    carried = 0.0
    for row, value in zip(rows, values, strict=True):
        beside = Opcode[row.opcode] is Opcode.NORM and len(folded) + 1 < len(rows)
        folded.append(0.0 if beside else carried + float(value))
        carried = carried + float(value) if beside else 0.0
    return tuple(folded)
