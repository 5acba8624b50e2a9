# SPDX-License-Identifier: Apache-2.0
"""The section that says where the clock cycles went: measured beside estimated, for each kind of instruction."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from codesign.report.frame import Frame, Kind, Spent, kinds, total
from codesign.report.parts import missing, section

_ALL = "all"
_MEASURED = ("cycles", "computes", "waits for weights", "waits for rows", "other")
_ESTIMATED = ("cycles", "compute", "memory", "fill", "stall")


def cycles(frames: Sequence[Frame], peak: int) -> str:
    """A table for each task; `peak` is of the array, in multiply-accumulates a cycle."""
    lead = (
        "What each kind of macro-instruction adds to a frame: from the RTL simulation's first image, from the end of "
        "one instruction to the end of the next, beside the estimate for the bundle's first image. A NORM runs beside "
        "the array; what the array waits for it counts for the instruction after it."
    )
    body = ""
    if all(frame.profile is None for frame in frames):
        body = missing("No RTL simulation yet: codesign simulate --engine rtlsim.")
    for frame in frames:
        body += f"<h3>{escape(_headline(frame))}</h3>{_summary(frame)}{_table(frame, peak)}"
    return section("Where the clock cycles go", lead, body)


def _headline(frame: Frame) -> str:
    name, count = frame.task.name, frame.task.num_instructions
    if frame.profile is None:
        return f"{name}: {frame.estimate.cycles:,} cycles estimated, {count} macro-instructions"
    error = frame.estimate.cycles / frame.cycles - 1
    return (
        f"{name}: {frame.cycles:,.0f} cycles measured in {count} macro-instructions, "
        f"{frame.estimate.cycles:,} estimated ({error:+.1%})"
    )


def _summary(frame: Frame) -> str:
    """What the array did, mean over all simulated images."""
    seen = frame.profile
    if seen is None:
        return ""
    shares = (
        ("works on dense layers", seen.dense_slots),
        ("on attention", seen.attention_slots),
        ("waits for weights", seen.wait_blocks),
        ("for rows", seen.wait_rows),
    )
    words = ", ".join(f"{what} {count / frame.cycles:.1%}" for what, count in shares)
    return f"<p>Of these cycles the array {escape(words)}.</p>"


def _table(frame: Frame, peak: int) -> str:
    found = kinds(frame)
    measured = frame.profile is not None
    head = ("kind", "opcode", "count", "MACs", *(_MEASURED if measured else ()), *_ESTIMATED, "of peak")
    groups = "<tr><th colspan=4></th>" + ("<th colspan=5 class=g>measured in RTL</th>" if measured else "")
    groups += "<th colspan=5 class=g>estimated</th><th></th></tr>"
    cells = "".join(f"<th{' class=n' if i > 1 else ''}>{escape(cell)}</th>" for i, cell in enumerate(head))
    rows = [_row(kind, measured, peak) for kind in found if kind.cycles or _estimated(kind)[0]]
    rows.append(_row(_all(found), measured, peak))
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' if i > 1 else ''}>{escape(cell)}</td>" for i, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f'<table class="dense">{groups}<tr>{cells}</tr>{body}</table>'


def _row(kind: Kind, measured: bool, peak: int) -> tuple[str, ...]:
    busy = f"{kind.macs / (kind.cycles * peak):.1%}" if kind.macs and kind.cycles else "–"
    seen = _numbers(kind) if measured else ()
    guessed = tuple(f"{value:,}" for value in _estimated(kind))
    opcode = "" if kind.name == _ALL else kind.opcode.name
    return (kind.name, opcode, str(len(kind.estimates)), f"{kind.macs:,}", *seen, *guessed, busy)


def _numbers(kind: Kind) -> tuple[str, ...]:
    if kind.spent is None:
        return (f"{kind.cycles:,.0f}", "–", "–", "–", "–")
    s = kind.spent
    return tuple(f"{value:,.0f}" for value in (s.cycles, s.slots, s.wait_blocks, s.wait_rows, s.other))


def _estimated(kind: Kind) -> tuple[int, ...]:
    rows = kind.estimates
    return (
        sum(row.cycles for row in rows),
        sum(row.compute for row in rows),
        sum(row.memory for row in rows),
        sum(row.fill for row in rows),
        sum(row.stall for row in rows),
    )


def _all(found: Sequence[Kind]) -> Kind:
    parts = [kind.spent for kind in found if kind.spent is not None]
    spent: Spent | None = total(parts) if len(parts) == len(found) else None
    rows = tuple(row for kind in found for row in kind.estimates)
    return Kind(_ALL, found[0].opcode, rows, sum(kind.cycles for kind in found), spent)
