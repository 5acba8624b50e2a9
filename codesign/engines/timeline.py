# SPDX-License-Identifier: Apache-2.0
"""A run's trace (`rtl_tests/machine/trace.cpp`) as a timeline that opens in Perfetto and in chrome://tracing.

Format: Google's Trace Event Format, https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from codesign.emit.manifest import InstructionInfo
from codesign.errors import InputError
from codesign.schedule.isa import BEAT_BYTES, Opcode

_HEADER = "codesign-trace 1"
_PORTS = 4
UNITS = ("norm", "router", "load", "store")
"""Units whose busy times the trace has."""
_TRACK_OF = {Opcode.NORM: "norm", Opcode.LOAD: "load", Opcode.STORE: "store"}

Event = dict[str, object]
"""One entry of `traceEvents`."""


@dataclass(frozen=True)
class Span:
    """Something from one clock cycle of the run to another."""

    name: str
    begin: int
    end: int


@dataclass(frozen=True)
class Window:
    """Counts over `length` clock cycles that end with cycle `end`."""

    end: int
    length: int
    dense: int
    score: int
    mix: int
    wait_blocks: int
    wait_rows: int
    kv_words: int
    fifo_level: int
    read_beats: tuple[int, ...]
    write_beats: tuple[int, ...]

    @property
    def begin(self) -> int:
        """The cycle before its first."""
        return self.end - self.length

    @property
    def slots(self) -> int:
        """Cycles in which the array worked."""
        return self.dense + self.score + self.mix

    @property
    def state(self) -> str:
        """What the array did most of the time."""
        idle = self.length - self.slots - self.wait_blocks - self.wait_rows
        times = (
            (self.slots, "computes"),
            (self.wait_blocks, "waits for blocks"),
            (self.wait_rows, "waits for rows"),
            (idle, "idle"),
        )
        return max(times, key=lambda one: one[0])[1]


@dataclass(frozen=True)
class Trace:
    """A run: when each instruction was dispatched and complete (cycles from the start), busy units, windows."""

    dispatched: tuple[int, ...]
    completed: tuple[int, ...]
    busy: tuple[Span, ...]
    windows: tuple[Window, ...]
    cycles: int


def parse_trace(text: str) -> Trace:
    """The trace file's text. Raises InputError when it is none, or ends early."""
    lines = text.splitlines()
    if not lines or lines[0] != _HEADER:
        found = lines[0] if lines else "nothing"
        raise InputError(f"a trace must begin with {_HEADER!r}, not {found!r}; trace the run again")
    dispatched, completed, cycles = [], [], -1
    busy: list[Span] = []
    windows: list[Window] = []
    began: dict[str, int] = {}
    try:
        for kind, *fields in (line.split() for line in lines[1:]):
            if kind == "D":
                dispatched.append(int(fields[0]))
            elif kind == "C":
                completed.append(int(fields[0]))
            elif kind == "B":
                began[fields[1]] = int(fields[0])
            elif kind == "E":
                busy.append(Span(fields[1], began.pop(fields[1]), int(fields[0])))
            elif kind == "W":
                windows.append(_window([int(field) for field in fields]))
            elif kind == "S":
                cycles = int(fields[0])
            else:
                raise ValueError(f"record {kind!r}")
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(
            f"a trace must hold the records of trace.cpp, and one is damaged: {error}; trace again"
        ) from None
    if cycles < 0:
        raise InputError("a trace must end with the record S, and it does not; let the run end")
    busy += [Span(name, begin, cycles) for name, begin in began.items()]
    return Trace(tuple(dispatched), tuple(completed), tuple(busy), tuple(windows), cycles)


def _window(values: Sequence[int]) -> Window:
    counts, beats = values[: -2 * _PORTS], tuple(values[-2 * _PORTS :])
    if len(counts) != 9:
        raise ValueError(f"a window of {len(values)} numbers")
    end, length, dense, score, mix, wait_blocks, wait_rows, kv_words, fifo_level = counts
    reads, writes = beats[:_PORTS], beats[_PORTS:]
    return Window(end, length, dense, score, mix, wait_blocks, wait_rows, kv_words, fifo_level, reads, writes)


def perfetto(trace: Trace, instructions: Sequence[InstructionInfo], clock_mhz: float) -> str:
    """The timeline as JSON: tracks for the array, its softmax, every unit and AXI port, with the instructions' names.

    `instructions`: of the Program that ran, as the manifest lists them; a longer (traced) Program's are numbered.
    """

    def micros(cycle: int) -> float:
        return cycle / clock_mhz

    tracks: tuple[tuple[str, Iterable[tuple[Span, Event]]], ...] = (
        ("array", _instructions(trace, instructions, "array")),
        ("array state", _runs(trace, lambda w: w.state)),
        ("softmax", _runs(trace, lambda w: "softmax" if w.mix else "")),
        *((unit, _unit(trace, instructions, unit)) for unit in UNITS),
    )
    events: list[Event] = [_meta("process_name", 0, f"machine at {clock_mhz:g} MHz")]
    for number, (name, spans) in enumerate(tracks, start=1):
        events.append(_meta("thread_name", number, name))
        for span, facts in spans:
            events.append(
                {
                    "ph": "X", "pid": 1, "tid": number, "name": span.name, "ts": micros(span.begin),
                    "dur": micros(span.end - span.begin), "args": {"cycles": span.end - span.begin, **facts},
                }
            )  # fmt: skip
    for window in trace.windows:
        events += [
            {"ph": "C", "pid": 1, "name": name, "ts": micros(window.begin), "args": values}
            for name, values in _counters(window)
        ]
    return json.dumps({"displayTimeUnit": "ns", "traceEvents": events})


def _meta(kind: str, track: int, name: str) -> Event:
    return {"ph": "M", "pid": 1, "tid": track, "name": kind, "args": {"name": name}}


def _instructions(trace: Trace, instructions: Sequence[InstructionInfo], track: str) -> Iterator[tuple[Span, Event]]:
    """The instructions of a track, one after the other: each from where its work can have begun."""
    known = instructions if len(instructions) == len(trace.dispatched) else ()
    free = 0
    for index, (dispatched, completed) in enumerate(zip(trace.dispatched, trace.completed, strict=False)):
        info = known[index] if known else None
        if (_TRACK_OF.get(Opcode[info.opcode], "array") if info else "array") != track:
            continue
        facts: Event = {"index": index, "dispatched": dispatched}
        if info:
            facts |= {"opcode": info.opcode, "macs": info.macs, "read_bytes": info.read_bytes}
        name = info.name if info else f"instruction {index}"
        yield Span(name, max(dispatched, free), completed), facts
        free = completed


def _unit(trace: Trace, instructions: Sequence[InstructionInfo], unit: str) -> Iterator[tuple[Span, Event]]:
    """When a unit was busy, with the name of its instruction where that can be told."""
    named = [span for span, _ in _instructions(trace, instructions, unit)]
    for span in (s for s in trace.busy if s.name == unit):
        at = next((n for n in named if n.begin <= span.end <= n.end + 1), None)
        yield Span(at.name if at else unit, span.begin, span.end), {}


def _runs(trace: Trace, name_of: Callable[[Window], str]) -> Iterator[tuple[Span, Event]]:
    """Neighbouring windows of the same name as one span; windows without a name are left out."""
    for name, group in itertools.groupby(trace.windows, key=name_of):
        windows = list(group)
        if name:
            yield Span(name, windows[0].begin, windows[-1].end), {"slots": sum(w.slots for w in windows)}


def _counters(window: Window) -> Iterator[tuple[str, Event]]:
    """Counter tracks: percent of the cycles, bytes a cycle, blocks."""

    def percent(count: int) -> float:
        return round(100 * count / window.length, 1)

    yield "array %", {"dense": percent(window.dense), "scores": percent(window.score), "softmax": percent(window.mix)}
    yield "array waits %", {"for blocks": percent(window.wait_blocks), "for rows": percent(window.wait_rows)}
    yield "K and V words %", {"read": percent(window.kv_words)}
    yield "block FIFO", {"blocks": window.fifo_level}
    for port, (reads, writes) in enumerate(zip(window.read_beats, window.write_beats, strict=True)):
        yield (
            f"AXI port {port}, bytes a cycle",
            {
                "read": round(reads * BEAT_BYTES / window.length, 2),
                "written": round(writes * BEAT_BYTES / window.length, 2),
            },
        )
