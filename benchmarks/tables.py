# SPDX-License-Identifier: Apache-2.0
"""Markdown tables, and the places in documents that scripts fill with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

END = "<!-- end -->"


def marker(name: str, script: str) -> str:
    """The line above a table that benchmarks/`script`.py makes."""
    return f"<!-- {name}: made by benchmarks/{script}.py -->\n"


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table; all columns but the first `left` are numbers, and stand to the right."""
    sides = ["---" if at < left else "---:" for at in range(len(heads))]
    lines = [f"| {' | '.join(row)} |" for row in (heads, *rows)]
    return "\n".join([lines[0], f"|{'|'.join(sides)}|", *lines[1:]])


def replace_tables(document: Path, script: str, tables: Mapping[str, str]) -> None:
    """Replace what stands between each table's marker and the next end in a document.

    Raises ValueError, and leaves the document as it is, when a marker or its end is missing.
    """
    text = document.read_text(encoding="utf-8")
    for name, table in tables.items():
        begin = marker(name, script)
        if text.count(begin) != 1 or END not in text.split(begin, 1)[1]:
            raise ValueError(f"{document} must have {begin.strip()!r} once, and {END!r} below it")
        head, rest = text.split(begin, 1)
        text = f"{head}{begin}{table}\n{END}{rest.split(END, 1)[1]}"
    partial = document.with_name(f".{document.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(document)
