# SPDX-License-Identifier: Apache-2.0
"""Verilator's coverage files: merging them, and what share of each module's lines, branches and toggles was covered."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HEADER = "# SystemC::Coverage-3"
KINDS = ("line", "branch", "toggle")
"""A block of statements; one outcome of an `if` or of `?:`; one direction of one bit (of vectors of at most 256)."""
BENCHES = ("tb_", "axi_check")
"""How the names of modules begin that are no part of the machine."""


@dataclass(frozen=True)
class Point:
    """Something that is covered or not, in all instances of its module together."""

    module: str
    kind: str
    """One of KINDS."""
    line: int
    column: int
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.line}:{self.column} {self.what}"


@dataclass(frozen=True)
class Share:
    """How many points there are, and how many of them were reached."""

    points: int = 0
    hit: int = 0

    def __add__(self, other: Share) -> Share:
        return Share(self.points + other.points, self.hit + other.hit)

    def __str__(self) -> str:
        return f"{self.percent:6.1f} %" if self.points else "      -"

    @property
    def percent(self) -> float:
        """100 where there is nothing to cover."""
        return 100 * self.hit / self.points if self.points else 100.0


@dataclass(frozen=True)
class Covered:
    """What was covered of a module."""

    module: str
    lines: Share
    branches: Share
    toggles: Share


def read(files: Iterable[Path]) -> Counter[Point]:
    """How often each point was reached, over all files. Raises ValueError for a file that is none of Verilator's."""
    counts: Counter[Point] = Counter()
    for file in files:
        lines = file.read_text(encoding="latin-1").splitlines()
        if not lines or lines[0] != HEADER:
            raise ValueError(f"{file} must be a coverage file of Verilator, which begins with {HEADER!r}")
        for line in lines[1:]:
            text, _, count = line.rpartition(" ")
            pairs = (pair.partition("\x02") for pair in text[3:-1].split("\x01") if pair)
            facts = {key: value for key, _, value in pairs}
            module = Path(facts["f"]).stem
            if facts["t"] in KINDS and not module.startswith(BENCHES):
                place = int(facts["l"]), int(facts.get("n", 0))
                counts[Point(module, facts["t"], *place, facts.get("o", ""))] += int(count)
    return counts


def summary(counts: Counter[Point]) -> list[Covered]:
    """By module, the names sorted."""
    found: defaultdict[str, Counter[tuple[str, bool]]] = defaultdict(Counter)
    for point, count in counts.items():
        found[point.module][point.kind, count > 0] += 1
    return [
        Covered(module, *(Share(n[kind, True] + n[kind, False], n[kind, True]) for kind in KINDS))
        for module, n in sorted(found.items())
    ]


def total(rows: Iterable[Covered]) -> Covered:
    """All modules together."""
    sums = [Share(), Share(), Share()]
    for r in rows:
        sums = [a + b for a, b in zip(sums, (r.lines, r.branches, r.toggles), strict=True)]
    return Covered("all modules", *sums)


def missed(counts: Counter[Point], module: str) -> list[Point]:
    """The points of a module that were never reached, in the order of its lines."""
    found = (p for p, count in counts.items() if p.module == module and not count)
    return sorted(found, key=lambda p: (p.line, p.column, p.kind, p.what))


def table(counts: Counter[Point]) -> str:
    """The summary as text, with a last row for all modules."""
    rows = summary(counts)
    lines = [f"{'module':<24} {'lines':>8} {'branches':>8} {'toggles':>8}"]
    lines += [f"{r.module:<24} {r.lines} {r.branches} {r.toggles}" for r in (*rows, total(rows))]
    return "\n".join(lines)
