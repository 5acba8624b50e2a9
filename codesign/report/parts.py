# SPDX-License-Identifier: Apache-2.0
"""What the sections of the page are made of: boxes, tables, legends, colours, words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType

from codesign.schedule.isa import Opcode

# Paul Tol's bright scheme: distinguishable with any colour vision.
COLOURS: Mapping[Opcode, str] = MappingProxyType(
    {
        Opcode.LINEAR: "#4477aa",
        Opcode.ATTENTION: "#ee6677",
        Opcode.EXPERTS: "#228833",
        Opcode.NORM: "#ccbb44",
        Opcode.ROUTE: "#aa3377",
        Opcode.LOAD: "#66ccee",
        Opcode.STORE: "#99a1ab",
    }
)
SAVED = "#dfe4ea"


def section(title: str, lead: str, body: str) -> str:
    """A box with a heading and a sentence that says what one sees."""
    return f"<section><h2>{escape(title)}</h2><p>{escape(lead)}</p>{body}</section>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    cells = "".join(f"<th{' class=n' if i else ''}>{escape(cell)}</th>" for i, cell in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{' class=n' if i else ''}>{escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{cells}</tr>{body}</table>"


def missing(text: str) -> str:
    """A remark in place of a figure that nobody has measured yet."""
    return f'<div class="missing">{escape(text)}</div>'


def legend(items: Sequence[tuple[str, str]], lead: str = "") -> str:
    """(name, colour) pairs in a line, behind a word that says what they are."""
    marks = f"<b>{escape(lead)}</b>" if lead else ""
    marks += "".join(f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in items)
    return f'<div class="legend">{marks}</div>'


def opcode_legend(opcodes: Sequence[Opcode]) -> str:
    """The colours of opcodes."""
    return legend([(opcode.name, COLOURS[opcode]) for opcode in opcodes])


def short(name: str) -> str:
    """The block a name belongs to: `semseg.block1.router` -> `block1`; other names stay."""
    return next((part for part in name.split(".") if part.startswith("block")), name)


def size(count: float) -> str:
    """Bytes for a person."""
    return f"{count / 1024:,.1f} KiB" if count >= 1024 else f"{count:,.0f} B"
