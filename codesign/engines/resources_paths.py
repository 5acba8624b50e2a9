# SPDX-License-Identifier: Apache-2.0
"""Puts the paths of units together: from a register through ports, black boxes and their logic to a register.

A path belongs to the unit that holds all of it. Ports are taken whole: of all bits of a port the slowest counts, so a
path through wide ports may come out longer than it is, never shorter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codesign.engines.resources_netlist import REGISTERS, End, Longest, Summary


@dataclass(frozen=True)
class Route:
    """A path with its levels and the nets it comes by, in the unit's own names."""

    levels: int
    stations: tuple[str, ...]

    def then(self, other: Route) -> Route:
        """This path, then the other."""
        known = self.stations[-1:] == other.stations[:1]  # both name the port where they meet
        return Route(self.levels + other.levels, self.stations + other.stations[int(known) :])

    def inside(self, instance: str) -> Route:
        """The same path as the parent of `instance` names it."""
        return Route(self.levels, tuple(f"{instance}.{station}" for station in self.stations))


@dataclass(frozen=True)
class Timing:
    """What a unit's surroundings must know, all by names of its ports, and its own longest path."""

    to_register: Mapping[str, Route]
    """From an input port to a register inside."""
    from_register: Mapping[str, Route]
    through: Mapping[tuple[str, str], Route]
    worst: Route | None
    """Register to register, None when there is no such path. Paths wholly in one black box belong to that."""
    loop: bool
    """Black boxes feed one another in a circle, port by port; the circle was cut, so a path may be missing."""


_Hops = Mapping[End, Sequence[tuple[End, Route]]]


def timing(summary: Summary, below: Mapping[str, Timing]) -> Timing:
    """The timing of a unit from its summary and the timing of its black boxes, by module name."""
    hops = _hops(summary, below)
    search = _Search(hops)
    inputs = sorted({path.source.port for path in summary.paths if path.source.port and not path.source.instance})
    to_register, through = {}, {}
    for port in inputs:
        for sink, route in search.routes(End("", port)).items():
            if sink == REGISTERS:
                to_register[port] = route
            else:
                through[port, sink.port] = route
    from_register = {}
    worst = None
    for sink, route in search.routes(REGISTERS).items():
        if sink == REGISTERS:
            worst = route
        else:
            from_register[sink.port] = route
    return Timing(to_register, from_register, through, worst, search.loop)


def _hops(summary: Summary, below: Mapping[str, Timing]) -> _Hops:
    """From each end where paths may be, where they go next. Sinks are registers and output ports."""
    hops: defaultdict[End, list[tuple[End, Route]]] = defaultdict(list)
    for path in summary.paths:
        hops[path.source].append((path.sink, _route(path)))
    for box in summary.boxes:
        child = below[box.module]
        for port, route in child.from_register.items():
            hops[REGISTERS].append((End(box.instance, port), route.inside(box.instance)))
        for (port, out), route in child.through.items():
            hops[End(box.instance, port)].append((End(box.instance, out), route.inside(box.instance)))
        for port, route in child.to_register.items():
            hops[End(box.instance, port)].append((REGISTERS, route.inside(box.instance)))
    return hops


def _route(path: Longest) -> Route:
    return Route(path.levels, (path.first, path.last))


class _Search:
    """Longest routes to registers and output ports, each end worked out once."""

    def __init__(self, hops: _Hops) -> None:
        self._hops = hops
        self._known: dict[End, dict[End, Route]] = {}
        self._open: set[End] = set()
        self.loop = False

    def routes(self, end: End) -> dict[End, Route]:
        """The longest route from `end` to each sink."""
        if end in self._known:
            return self._known[end]
        self._open.add(end)
        best: dict[End, Route] = {}
        for following, hop in self._hops.get(end, ()):
            if following == REGISTERS or (not following.instance):
                found = {following: hop}
            elif following in self._open:
                self.loop = True
                continue
            else:
                found = {sink: hop.then(route) for sink, route in self.routes(following).items()}
            for sink, route in found.items():
                if sink not in best or best[sink].levels < route.levels:
                    best[sink] = route
        self._open.discard(end)
        self._known[end] = best
        return best
