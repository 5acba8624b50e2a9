# SPDX-License-Identifier: Apache-2.0
"""Charts as static SVG: they need no script, print well, and a browser shows each mark's `<title>` as a tooltip."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

FONT = 12
Values = npt.NDArray[np.float64]
_ROW = 20
_BAR = 13
_LABEL = 190
_WIDTH = 900


@dataclass(frozen=True)
class Bar:
    """One horizontal bar: its parts stand behind one another; `note` is written at its end."""

    label: str
    parts: tuple[tuple[float, str], ...]
    """(value, colour) pairs."""
    note: str
    title: str


def text(x: float, y: float, content: str, anchor: str = "start", css: str = "", angle: float = 0.0) -> str:
    """A line of text whose baseline is at y; `angle`: degrees it is turned clockwise around (x, y)."""
    kind = f' class="{css}"' if css else ""
    turn = f' transform="rotate({angle:.1f} {x:.1f} {y:.1f})"' if angle else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}{turn}>{escape(content)}</text>'


def line(start: tuple[float, float], end: tuple[float, float], colour: str, width: float = 1.0, dash: str = "") -> str:
    """A straight line."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    ends = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"{dashes}/>'


def marker(x: float, y: float, radius: float, sides: int, colour: str, title: str, hollow: bool = False) -> str:
    """A circle (`sides` 0) or a polygon with a corner at the right, with a tooltip."""
    fill, edge = ("#ffffff", colour) if hollow else (colour, "#ffffff")
    paint = f'fill="{fill}" stroke="{edge}" stroke-width="1.5"><title>{escape(title)}</title>'
    if not sides:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {paint}</circle>'
    angles = np.arange(sides) * 2 * np.pi / sides
    corners = " ".join(f"{x + radius * np.cos(a):.1f},{y + radius * np.sin(a):.1f}" for a in angles)
    return f'<polygon points="{corners}" {paint}</polygon>'


@dataclass(frozen=True)
class Box:
    """A rectangle of the picture: left, top, width, height."""

    x: float
    y: float
    width: float
    height: float

    def holds(self, other: Box) -> bool:
        """The other lies inside."""
        across = self.x <= other.x and other.x + other.width <= self.x + self.width
        return across and self.y <= other.y and other.y + other.height <= self.y + self.height

    def touches(self, other: Box) -> bool:
        """They have a point in common."""
        apart = self.x > other.x + other.width or other.x > self.x + self.width
        return not (apart or self.y > other.y + other.height or other.y > self.y + self.height)


def area(box: Box, low: Values, high: Values, colour: str, title: str) -> str:
    """The area between two step functions, 0..1 over the height of `box`, with steps of equal width."""
    xs = box.x + box.width * np.arange(len(low) + 1) / max(len(low), 1)
    path = "".join(_steps(box, xs, low, high, first, last) for first, last in _stretches(high > low))
    return f'<path d="{path}" fill="{colour}"><title>{escape(title)}</title></path>' if path else ""


def _steps(box: Box, xs: Values, low: Values, high: Values, first: int, last: int) -> str:
    """A closed path around the steps `first` .. `last` - 1."""
    tops, bottoms = (box.y + box.height * (1 - np.clip(side, 0, 1)) for side in (high, low))
    points = [f"M{xs[first]:.1f} {bottoms[first]:.1f}"]
    for sides, order, end in ((tops, range(first, last), 1), (bottoms, range(last - 1, first - 1, -1), 0)):
        for level, steps in itertools.groupby(order, key=lambda step: f"{sides[step]:.1f}"):
            points.append(f"V{level}H{xs[list(steps)[-1] + end]:.1f}")
    return "".join(points) + "Z"


def _stretches(where: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Runs of True, (first, last + 1)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def rectangle(x: float, y: float, width: float, height: float, colour: str, title: str) -> str:
    """A filled rectangle with a tooltip."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{colour}"><title>{escape(title)}</title></rect>'


def frame(width: float, height: float, body: Sequence[str], label: str) -> str:
    """The SVG element; it scales down with the page and keeps its text size up to its natural width."""
    head = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" role="img"'
    return f'{head} aria-label="{escape(label, quote=True)}">{"".join(body)}</svg>'


def bars(rows: Sequence[Bar], label: str) -> str:
    """Horizontal bars on one common scale."""
    longest = max((sum(value for value, _ in row.parts) for row in rows), default=0.0) or 1.0
    scale = (_WIDTH - _LABEL - 170) / longest
    body = []
    for number, row in enumerate(rows):
        top, x = number * _ROW, float(_LABEL)
        body.append(text(_LABEL - 8, top + 14, row.label, "end"))
        for value, colour in row.parts:
            if value > 0:
                body.append(rectangle(x, top + 3.5, value * scale, _BAR, colour, row.title))
                x += value * scale
        body.append(text(x + 6, top + 14, row.note, css="note"))
    return frame(_WIDTH, len(rows) * _ROW + 4, body, label)


@dataclass(frozen=True)
class Segment:
    """A stretch of a timeline, in clock cycles."""

    label: str
    length: int
    colour: str


def timeline(segments: Sequence[Segment], label: str) -> str:
    """Segments one after the other on one axis of clock cycles, with round tick marks."""
    total = max(sum(one.length for one in segments), 1)
    height, scale, body, x = 34, _WIDTH / total, [], 0.0
    for one in segments:
        width = one.length * scale
        title = f"{one.label}: {one.length:,} cycles ({one.length / total:.1%})"
        body.append(rectangle(x, 0, max(width - 0.6, 0.4), height, one.colour, title))
        x += width
    step = round_step(total / 8)
    for tick in range(0, total + 1, step):
        at = tick * scale
        anchor = "start" if tick == 0 else "end" if at > _WIDTH - 30 else "middle"
        body.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{height}" y2="{height + 5}" class="axis"/>')
        body.append(text(at, height + 18, f"{tick:,}", anchor, "note"))
    return frame(_WIDTH, height + 24, body, label)


def round_step(rough: float) -> int:
    """1, 2 or 5 times a power of ten, at least `rough`."""
    power = 10.0 ** np.floor(np.log10(max(rough, 1.0)))
    return int(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough))


def heatmap(values: npt.NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], label: str) -> str:
    """Cells [rows, columns] from white to a dark blue, each with its value rounded."""
    cell_w, cell_h, left, top = 58, 30, 150, 22
    peak = float(values.max(initial=0.0)) or 1.0
    body = [text(left + (c + 0.5) * cell_w, 14, name, "middle", "note") for c, name in enumerate(columns)]
    for r, name in enumerate(rows):
        y = top + r * cell_h
        body.append(text(left - 8, y + 19, name, "end"))
        for c, column in enumerate(columns):
            value = float(values[r, c])
            share = value / peak
            title = f"{name}, expert {column}: {value:.1f} tokens per image"
            body.append(rectangle(left + c * cell_w, y, cell_w - 2, cell_h - 2, _blue(share), title))
            css = "light" if share > 0.5 else "cell"
            body.append(text(left + (c + 0.5) * cell_w - 1, y + 19, f"{value:.0f}", "middle", css))
    return frame(left + len(columns) * cell_w + 4, top + len(rows) * cell_h + 2, body, label)


def _blue(share: float) -> str:
    """From nearly white at 0 to dark blue at 1."""
    light, dark = np.array([238.0, 243.0, 250.0]), np.array([16.0, 62.0, 120.0])
    red, green, blue = (round(v) for v in light + (dark - light) * share)
    return f"#{red:02x}{green:02x}{blue:02x}"
