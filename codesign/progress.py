# SPDX-License-Identifier: Apache-2.0
"""Progress bars of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def watching() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars on stderr, one for each thing that is reported; nothing when stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console, disable=not console.is_terminal)

    def watch(what: str, done: int, total: int) -> None:
        progress.start()
        known = [task for task in progress.tasks if task.description == what]
        number = known[0].id if known else progress.add_task(what, total=total)
        progress.update(number, completed=done, total=total)

    try:
        yield watch
    finally:
        if progress.tasks:
            progress.stop()
