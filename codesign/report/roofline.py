# SPDX-License-Identifier: Apache-2.0
"""The roofline: work per cycle against work per byte, under what the array and the memory can do at most.

Source: Williams, Waterman, Patterson, "Roofline: An Insightful Visual Performance Model for Multicore Architectures",
CACM 52(4), 2009, doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from codesign.engines import Bundle
from codesign.report import svg
from codesign.report.frame import Frame, Kind, kinds
from codesign.report.parts import COLOURS, opcode_legend, section
from codesign.schedule.isa import Opcode

_WIDTH, _HEIGHT = 920, 400
_PLOT = svg.Box(66, 12, _WIDTH - 66 - 26, _HEIGHT - 12 - 48)
_INK, _SOFT, _GRID = "#1c2430", "#5d6878", "#eceff3"
_FRAME, _LEAST = 9.0, 0.005


@dataclass(frozen=True)
class Point:
    """Work done: MACs per byte read (infinite where nothing was) and MACs per cycle."""

    label: str
    intensity: float
    rate: float
    share: float
    """Of the frame's cycles."""
    colour: str
    title: str


@dataclass(frozen=True)
class Roofs:
    """What the machine can do at most."""

    peak: float
    """MACs a cycle of the array."""
    memory: float
    """Bytes a cycle that the board's memory sustains."""
    ports: float
    """Bytes a cycle that the AXI ports carry."""

    @property
    def supply(self) -> float:
        """Bytes a cycle that reach the machine."""
        return min(self.memory, self.ports)

    def at(self, intensity: float) -> float:
        """The most MACs a cycle at an intensity in MACs a byte."""
        return min(self.peak, intensity * self.supply)


def roofs_of(bundle: Bundle) -> Roofs:
    """The roofs of the bundle's machine on its board."""
    m = bundle.manifest
    return Roofs(bundle.peak_macs_per_cycle, m.dram.bytes_per_cycle(m.clock_mhz), bundle.size.line_bytes)


def roofline(frames: Sequence[Frame], roofs: Roofs) -> str:
    """The section: a chart for each task."""
    lead = (
        "Multiply-accumulates per clock cycle against multiply-accumulates per byte read from DRAM. A frame "
        "cannot lie above the lines: the array's peak and what the board's memory delivers. The diamond is the whole "
        "frame, circles are kinds of macro-instructions, larger ones with more of its cycles (from 0.5 %): they may "
        "lie left of the slope when their weights were read ahead, and at the right edge when they read nothing."
    )
    body = opcode_legend((Opcode.LINEAR, Opcode.ATTENTION, Opcode.EXPERTS, Opcode.ROUTE))
    for frame in frames:
        whole = whole_frame(frame, roofs)
        best = frame.task.macs / roofs.at(whole.intensity)
        parts = [_point(kind, frame) for kind in kinds(frame) if kind.macs and kind.cycles >= _LEAST * frame.cycles]
        how = "cycles measured in RTL" if frame.profile is not None else "cycles estimated: no RTL simulation yet"
        body += f"<h3>{escape(f'{frame.task.name}: {frame.cycles / best:.2f} times the roofline, {how}')}</h3>"
        body += chart(whole, parts, roofs, frame.task.name)
    return section("Roofline", lead, body)


def whole_frame(frame: Frame, roofs: Roofs) -> Point:
    """The whole frame: measured, where it was, else estimated."""
    where = "RTL" if frame.profile is not None else "estimate"
    rate, intensity = frame.task.macs / frame.cycles, frame.task.macs / frame.read_bytes
    label = f"whole frame, {where}: {rate:,.0f}"
    words = f"{rate / roofs.peak:.1%} of the peak, {intensity:,.0f} MACs/byte"
    return Point(label, intensity, rate, 1.0, _INK, f"{label} MACs/cycle, {words}")


def _point(kind: Kind, frame: Frame) -> Point:
    rate = kind.macs / kind.cycles if kind.cycles else 0.0
    intensity = kind.macs / kind.read_bytes if kind.read_bytes else math.inf
    share = kind.cycles / frame.cycles
    at = f"{intensity:,.0f} MACs/byte" if kind.read_bytes else "no byte read"
    title = f"{kind.name} ({kind.opcode.name}): {rate:,.0f} MACs/cycle, {at}, {share:.1%} of the frame's cycles"
    return Point(kind.name, intensity, rate, share, COLOURS[kind.opcode], title)


@dataclass(frozen=True)
class _Axes:
    """Logarithmic axes over `_PLOT`."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, intensity: float, rate: float) -> tuple[float, float]:
        """The place of a point; an infinite intensity lies at the right edge."""
        across = math.log(min(intensity, self.x[1]) / self.x[0]) / math.log(self.x[1] / self.x[0])
        up = math.log(rate / self.y[0]) / math.log(self.y[1] / self.y[0])
        return _PLOT.x + across * _PLOT.width, _PLOT.y + (1 - up) * _PLOT.height


def chart(whole: Point, parts: Sequence[Point], roofs: Roofs, name: str) -> str:
    """One task's roofline."""
    points = (whole, *parts)
    finite = [point.intensity for point in points if math.isfinite(point.intensity)]
    ridge = roofs.peak / roofs.supply
    axes = _Axes(
        (_below(min(*finite, ridge / 4, roofs.peak / roofs.ports / 2)), _above(max(*finite, ridge * 4))),
        (_below(min(point.rate for point in points)), _above(roofs.peak * 1.1)),
    )
    taken: list[svg.Box] = []
    body = [*_grid(axes), *_roofs(axes, roofs, taken)]
    places = [(point, *axes.at(point.intensity, point.rate)) for point in points]
    taken += [svg.Box(x - _radius(p), y - _radius(p), 2 * _radius(p), 2 * _radius(p)) for p, x, y in places]
    for point, x, y in sorted(places[1:], key=lambda one: -one[0].share):
        body.append(svg.marker(x, y, _radius(point), 0, point.colour, point.title))
    body.append(svg.marker(*places[0][1:], _FRAME, 4, whole.colour, whole.title))
    body += [_label(words, x, y, radius, taken, "note") for words, x, y, radius in _clusters(places[1:])]
    body.append(_label(whole.label, *places[0][1:], _FRAME, taken, ""))
    return svg.frame(_WIDTH, _HEIGHT, body, f"roofline of {name}")


def _radius(point: Point) -> float:
    return 3.5 + 7 * math.sqrt(point.share)


def _clusters(places: Sequence[tuple[Point, float, float]]) -> list[tuple[str, float, float, float]]:
    """Points that all but cover one another share a label: (label, x, y, radius) of each such heap."""
    heaps: list[list[tuple[Point, float, float]]] = []
    for place in places:
        near = (h for h in heaps if any(math.hypot(place[1] - x, place[2] - y) < 14 for _, x, y in h))
        heap = next(near, None)
        if heap is None:
            heaps.append([place])
        else:
            heap.append(place)
    found = []
    for heap in heaps:
        x, y = (sum(values) / len(heap) for values in list(zip(*heap, strict=True))[1:])
        spread = max(math.hypot(one[1] - x, one[2] - y) + _radius(one[0]) for one in heap)
        found.append((", ".join(point.label for point, _, _ in heap), x, y, spread))
    return found


def _label(words: str, x: float, y: float, radius: float, taken: list[svg.Box], css: str) -> str:
    """Words at the first free place around a point, with a line to it where they do not stand beside it."""
    width, height, gap = 6.2 * len(words) + 2, 14.0, radius + 4
    places = [(x + gap, y - 7), (x - gap - width, y - 7), (x - width / 2, y + gap), (x - width / 2, y - gap - height)]
    places += [(x + side, y + s * d) for d in range(20, 150, 8) for s in (1, -1) for side in (gap, -gap - width)]
    boxes = [svg.Box(*place, width, height) for place in places]
    free = (n for n, b in enumerate(boxes) if _PLOT.holds(b) and not any(b.touches(other) for other in taken))
    chosen = next(free, None)
    if chosen is None:
        return ""  # no room: the tooltip still has it
    (left, top), lead = places[chosen], ""
    taken.append(boxes[chosen])
    if chosen >= 4:
        lead = svg.line((x, y), (left if left > x else left + width, top + 8), _SOFT, 0.6)
    return lead + svg.text(left, top + 11, words, css=css)


def _roofs(axes: _Axes, roofs: Roofs, taken: list[svg.Box]) -> list[str]:
    """The two roofs, and dashed what the ports could carry if the memory were faster."""
    end = axes.at(axes.x[1], roofs.peak)
    words = f"array: {roofs.peak:,.0f} MACs/cycle"
    body = [svg.text(end[0] - 4, end[1] - 6, words, "end", "note")]
    taken.append(svg.Box(end[0] - 6.2 * len(words), end[1] - 18, 6.2 * len(words), 20))
    slower = "memory" if roofs.memory <= roofs.ports else "AXI ports"
    body += _slope(axes, roofs, roofs.supply, slower, 14, taken)
    if roofs.ports > roofs.memory:
        body += _slope(axes, roofs, roofs.ports, "AXI ports", -5, taken, "5 4")
    corner = axes.at(roofs.peak / roofs.supply, roofs.peak)
    body.append(svg.line(axes.at(roofs.peak / roofs.ports, roofs.peak), corner, _SOFT, 1, "5 4"))
    body.append(svg.line(corner, end, _INK, 2))
    taken.append(svg.Box(corner[0], corner[1] - 1, end[0] - corner[0], 2))
    return body


def _slope(
    axes: _Axes, roofs: Roofs, rate: float, what: str, offset: float, taken: list[svg.Box], dash: str = ""
) -> list[str]:
    """The roof of `rate` bytes a cycle up to the array's, named along it `offset` pixels below."""
    low = max(axes.x[0], axes.y[0] / rate)
    start, top = axes.at(low, low * rate), axes.at(roofs.peak / rate, roofs.peak)
    run, rise = top[0] - start[0], top[1] - start[1]
    angle = math.atan2(rise, run)
    x, y = start[0] + 0.12 * run - offset * math.sin(angle), start[1] + 0.12 * rise + offset * math.cos(angle)
    taken += [svg.Box(start[0] + run * n / 40, start[1] + rise * (n + 1) / 40, run / 40, -rise / 40) for n in range(40)]
    stroke = svg.line(start, top, _SOFT, 1, dash) if dash else svg.line(start, top, _INK, 2)
    return [stroke, svg.text(x, y, f"{what}: {rate:g} bytes/cycle", css="note", angle=math.degrees(angle))]


def _grid(axes: _Axes) -> list[str]:
    """Lines and numbers at 1, 2 and 5 times the powers of ten."""
    bottom, right = _PLOT.y + _PLOT.height, _PLOT.x + _PLOT.width
    body = []
    for value in _ticks(*axes.x):
        x, _ = axes.at(value, axes.y[0])
        body += [svg.line((x, _PLOT.y), (x, bottom), _GRID), svg.text(x, bottom + 16, f"{value:g}", "middle", "note")]
    for value in _ticks(*axes.y):
        _, y = axes.at(axes.x[0], value)
        body += [svg.line((_PLOT.x, y), (right, y), _GRID), svg.text(_PLOT.x - 8, y + 4, f"{value:,g}", "end", "note")]
    body.append(svg.text(_PLOT.x + _PLOT.width / 2, _HEIGHT - 8, "MACs per byte read from DRAM", "middle"))
    body.append(svg.text(14, _PLOT.y + _PLOT.height / 2, "MACs per clock cycle", "middle", angle=-90))
    return body


def _ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (factor * 10.0**power for power in powers for factor in (1, 2, 5))
    return [step for step in steps if low * 0.999 <= step <= high * 1.001]


def _below(value: float) -> float:
    """1, 2 or 5 times a power of ten, below `value`."""
    return max(_ticks(value / 20, value / 1.05))


def _above(value: float) -> float:
    """1, 2 or 5 times a power of ten, above `value`."""
    return min(_ticks(value * 1.05, value * 20))
