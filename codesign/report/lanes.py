# SPDX-License-Identifier: Apache-2.0
"""The timeline of a frame: a lane for each unit, from the trace of the last RTL simulation's first image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from codesign.engines import Bundle, Trace
from codesign.engines.timeline import UNITS
from codesign.report import svg
from codesign.report.frame import Frame
from codesign.report.parts import COLOURS, legend, missing, section, short
from codesign.schedule.isa import BEAT_BYTES, Opcode

_LEFT, _RIGHT, _WIDTH = 92, 84, 920
_BINS = 500
_GROUND, _RULE = "#f4f6f8", "#c3cbd5"
_WRITES = "#aa3377"

ARRAY = (
    ("dense layer", COLOURS[Opcode.LINEAR]),
    ("attention", COLOURS[Opcode.ATTENTION]),
    ("waits for weights", "#ee7733"),
    ("waits for rows", COLOURS[Opcode.NORM]),
)
"""What the array does, with its colours."""
_UNIT, _READS, _LEVEL = "#7a8794", "#4a9b8e", "#8fa8c8"


@dataclass(frozen=True)
class _Scale:
    """Cycles to places."""

    cycles: int
    bins: int

    @property
    def edges(self) -> svg.Values:
        """Where bins begin and end, in cycles."""
        return np.linspace(0.0, self.cycles, self.bins + 1)

    def x(self, cycle: float) -> float:
        """The place of a cycle."""
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * cycle / self.cycles

    def lane(self, top: float, height: float) -> svg.Box:
        """A lane over the whole run."""
        return svg.Box(_LEFT, top, _WIDTH - _LEFT - _RIGHT, height)


def timelines(bundle: Bundle, frames: Sequence[Frame]) -> str:
    """The section: a timeline for each task that was simulated."""
    lead = (
        "One frame in the RTL simulation, from start to done: what the array did, which units were busy beside it, "
        "what the AXI ports carried, and how many blocks of weights lay ready."
    )
    if all(frame.profile is None for frame in frames):
        return section("Timeline", lead, missing("No RTL simulation yet: codesign simulate --engine rtlsim."))
    opcodes = [(o.name, COLOURS[o]) for o in COLOURS if o is not Opcode.NORM]
    body = legend(opcodes, "instruction") + legend(ARRAY, "array")
    others = (("unit busy", _UNIT), ("bytes read", _READS), ("bytes written", _WRITES), ("blocks ready", _LEVEL))
    body += legend(others, "beside it")
    for frame in frames:
        if frame.profile is None:
            continue
        cycles = frame.cycles if frame.trace is None else frame.trace.cycles
        time = cycles / bundle.manifest.clock_mhz
        body += f"<h3>{escape(f'{frame.task.name}: {cycles:,.0f} cycles = {time:,.0f} µs')}</h3>"
        if frame.trace is not None:
            body += lanes(frame, frame.trace, bundle.size.ports, bundle.size.fifo_blocks, bundle.manifest.clock_mhz)
        else:
            body += _bar(frame)
    return section("Timeline", lead, body)


def _bar(frame: Frame) -> str:
    """The instructions alone, for a simulation that left no trace."""
    rows = zip(frame.estimate.instructions, frame.instruction_cycles, strict=True)
    segments = [svg.Segment(f"{r.opcode} {r.name}", round(n), COLOURS[Opcode[r.opcode]]) for r, n in rows]
    return svg.timeline(segments, f"cycles of {frame.task.name}")


def lanes(frame: Frame, trace: Trace, ports: int, fifo_blocks: int, clock_mhz: float) -> str:
    """The chart of one run; lengths in clock cycles, `clock_mhz` for the second axis."""
    scale = _Scale(trace.cycles, min(_BINS, len(trace.windows)))
    body = _blocks(frame, trace, scale)
    top = 20.0
    body += _label("instruction", top, 16) + _instructions(frame, trace, scale, top)
    top += 22
    body += _label("array", top, 64, "100 %") + _array(trace, scale, top)
    top += 70
    for unit in UNITS:
        body += _label(unit, top, 13) + _unit(trace, unit, scale, top)
        top += 17
    top += 3
    for port in range(ports):
        body += _label(f"AXI port {port}", top, 22, f"{BEAT_BYTES} B/cycle" if not port else "")
        body += _port(trace, port, scale, top)
        top += 26
    body += _label("block FIFO", top, 34, f"{fifo_blocks:,} blocks") + _fifo(trace, fifo_blocks, scale, top)
    body += _axis(scale, top + 38, clock_mhz)
    return svg.frame(_WIDTH, top + 38 + 38, body, f"timeline of {frame.task.name}")


def per_cycle(trace: Trace, counts: Sequence[int], edges: svg.Values) -> svg.Values:
    """Counts of the windows as a mean per cycle between neighbouring `edges` (cycles)."""
    ends = [0, *(window.end for window in trace.windows)]
    until = np.interp(edges, ends, np.concatenate([[0], np.cumsum(counts)]))
    mean: svg.Values = np.diff(until) / np.diff(edges)
    return mean


def _array(trace: Trace, scale: _Scale, top: float) -> list[str]:
    windows, box = trace.windows, scale.lane(top, 64)
    counts = (
        [w.dense for w in windows],
        [w.score + w.mix for w in windows],
        [w.wait_blocks for w in windows],
        [w.wait_rows for w in windows],
    )
    low, body = np.zeros(scale.bins), [_ground(box)]
    for (name, colour), each in zip(ARRAY, counts, strict=True):
        high = low + per_cycle(trace, each, scale.edges)
        body.append(svg.area(box, low, high, colour, f"array: {name}, {sum(each):,} of {trace.cycles:,} cycles"))
        low = high
    return body


def _unit(trace: Trace, unit: str, scale: _Scale, top: float) -> list[str]:
    """Share of the time in which the unit was busy."""
    box, edges, busy = scale.lane(top, 13), scale.edges, np.zeros(scale.bins)
    total = 0
    for span in trace.busy:
        if span.name == unit:
            total += span.end - span.begin
            busy += np.clip(np.minimum(edges[1:], span.end) - np.maximum(edges[:-1], span.begin), 0, None)
    title = f"{unit}: busy in {total:,} of {trace.cycles:,} cycles"
    return [_ground(box), svg.area(box, np.zeros(scale.bins), busy / np.diff(edges), _UNIT, title)]


def _port(trace: Trace, port: int, scale: _Scale, top: float) -> list[str]:
    box, zero = scale.lane(top, 22), np.zeros(scale.bins)
    reads, writes = ([w.read_beats[port] for w in trace.windows], [w.write_beats[port] for w in trace.windows])
    read = per_cycle(trace, reads, scale.edges)
    both = read + per_cycle(trace, writes, scale.edges)
    words = [f"AXI port {port}: {sum(beats) * BEAT_BYTES:,} bytes" for beats in (reads, writes)]
    return [
        _ground(box),
        svg.area(box, zero, read, _READS, f"{words[0]} read"),
        svg.area(box, read, both, _WRITES, f"{words[1]} written"),
    ]


def _fifo(trace: Trace, fifo_blocks: int, scale: _Scale, top: float) -> list[str]:
    """Its mean level."""
    levels = [w.fifo_level * w.length for w in trace.windows]
    level = per_cycle(trace, levels, scale.edges) / fifo_blocks
    most = max(w.fifo_level for w in trace.windows)
    box = scale.lane(top, 34)
    title = f"block FIFO: at most {most:,} of {fifo_blocks:,} blocks"
    return [_ground(box), svg.area(box, np.zeros(scale.bins), level, _LEVEL, title)]


def _instructions(frame: Frame, trace: Trace, scale: _Scale, top: float) -> list[str]:
    """Those that use the array or move data, each from the end of the one before it; a NORM's lane is its unit's."""
    body, free = [_ground(scale.lane(top, 16))], 0
    for row, dispatched, completed in zip(frame.estimate.instructions, trace.dispatched, trace.completed, strict=True):
        opcode = Opcode[row.opcode]
        if opcode is not Opcode.NORM:
            begin = max(dispatched, free)
            title = f"{row.opcode} {row.name}: cycles {begin:,} to {completed:,} ({completed - begin:,})"
            width = scale.x(completed) - scale.x(begin)
            body.append(svg.rectangle(scale.x(begin), top, max(width - 0.5, 0.4), 16, COLOURS[opcode], title))
            free = completed
    return body


def _blocks(frame: Frame, trace: Trace, scale: _Scale) -> list[str]:
    """Names of the model's blocks above the lanes, where there is room."""
    body, begin = [], 0
    named = zip((short(row.name) for row in frame.estimate.instructions), trace.completed, strict=True)
    for name, group in itertools.groupby(named, key=lambda one: one[0]):
        end = [completed for _, completed in group][-1]
        room = scale.x(end) - scale.x(begin)
        words = name if room > 6.5 * len(name) else name.removeprefix("block")
        if room > 6.5 * len(words):
            body.append(svg.text((scale.x(begin) + scale.x(end)) / 2, 13, words, "middle", "note"))
            body.append(svg.line((scale.x(begin), 4), (scale.x(begin), 18), _RULE))
        begin = end
    return body


def _ground(box: svg.Box) -> str:
    return f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" fill="{_GROUND}"/>'


def _label(name: str, top: float, height: float, most: str = "") -> list[str]:
    """The lane's name, and at its right what its full height means."""
    body = [svg.text(_LEFT - 8, top + height / 2 + 4, name, "end")]
    if most:
        body.append(svg.text(_WIDTH - _RIGHT + 6, top + 9, most, css="note"))
    return body


def _axis(scale: _Scale, top: float, clock_mhz: float) -> list[str]:
    """Cycles, and below them the time."""
    body = [svg.line((scale.x(0), top), (scale.x(scale.cycles), top), "#5d6878")]
    for tick in range(0, scale.cycles + 1, svg.round_step(scale.cycles / 8)):
        x = scale.x(tick)
        anchor = "middle" if tick else "start"
        body += [svg.line((x, top), (x, top + 5), "#5d6878"), svg.text(x, top + 18, f"{tick:,}", anchor, "note")]
        body.append(svg.text(x, top + 33, f"{tick / clock_mhz:,.1f}".removesuffix(".0"), anchor, "note"))
    body.append(svg.text(_LEFT - 8, top + 18, "clock cycle", "end", "note"))
    body.append(svg.text(_LEFT - 8, top + 33, "time in µs", "end", "note"))
    return body
