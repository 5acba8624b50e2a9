# SPDX-License-Identifier: Apache-2.0
"""Verilator's coverage files: merging them, and the share of lines and toggles that were covered in each module."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HEADER = "# SystemC::Coverage-3"


@dataclass(frozen=True)
class Point:
    """Something that is covered or not, in all instances of its module together."""

    module: str
    kind: str
    """line (a block of statements) or toggle (one direction of one bit)."""
    where: str


@dataclass(frozen=True)
class Covered:
    """Points of a module, and how many of them were reached."""

    module: str
    lines: int
    lines_hit: int
    toggles: int
    toggles_hit: int


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
            if facts["t"] in ("line", "toggle"):
                where = f"{facts['l']}:{facts.get('n', '')} {facts.get('o', '')}"
                counts[Point(Path(facts["f"]).stem, facts["t"], where)] += int(count)
    return counts


def summary(counts: Counter[Point]) -> list[Covered]:
    """By module, the names sorted; the parts of the test bench are left out."""
    found: dict[str, dict[str, list[bool]]] = defaultdict(lambda: {"line": [], "toggle": []})
    for point, count in counts.items():
        found[point.module][point.kind].append(count > 0)
    return [
        Covered(module, len(kinds["line"]), sum(kinds["line"]), len(kinds["toggle"]), sum(kinds["toggle"]))
        for module, kinds in sorted(found.items())
        if not module.startswith(("tb_", "axi_check"))
    ]


def missed(counts: Counter[Point], module: str) -> list[str]:
    """The points of a module that were never reached."""
    return sorted(f"{p.kind} {p.where}" for p, count in counts.items() if p.module == module and not count)


def share(hit: int, points: int) -> str:
    """A percentage, or a dash where there is nothing to cover."""
    return f"{100 * hit / points:6.1f} %" if points else "      -"


def table(counts: Counter[Point]) -> str:
    """The summary as text, with a last row for all modules."""
    rows = summary(counts)
    total = Covered("all modules", *(sum(getattr(r, n) for r in rows) for n in NUMBERS))
    lines = [f"{'module':<24} {'lines':>8} {'toggles':>8}"]
    for r in (*rows, total):
        lines.append(f"{r.module:<24} {share(r.lines_hit, r.lines)} {share(r.toggles_hit, r.toggles)}")
    return "\n".join(lines)


NUMBERS = ("lines", "lines_hit", "toggles", "toggles_hit")
