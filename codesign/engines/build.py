# SPDX-License-Identifier: Apache-2.0
"""Builds a bundle's machine once, with the bundle's own `sim/check.py`: a user's CI builds the same way."""

from __future__ import annotations

from pathlib import Path

from codesign.engines import toolchain
from codesign.engines.bundle import Bundle
from codesign.engines.engine import Engine
from codesign.engines.toolchain import Command, Completed, Tool
from codesign.errors import InputError

_BUILD_SECONDS = 1800.0


def build(bundle: Bundle, engine: Engine, tools: tuple[Tool, ...]) -> Path:
    """The executable of csim or rtlsim, made again only when its sources have changed.

    Raises InputError for a missing tool, naming what to install, and when the sources do not build.
    """
    for tool in tools:
        toolchain.find(tool)
    log = bundle.path / "build" / f"build-{engine.value}.log"
    completed = toolchain.run(check_command(bundle, ("build", engine.value), log, _BUILD_SECONDS))
    return Path(last_line(completed, f"building {engine.value}"))


def check_command(bundle: Bundle, args: tuple[str, ...], log: Path, timeout: float) -> Command:
    """A call of the bundle's `sim/check.py`."""
    return Command(Tool.PYTHON, (str(bundle.path / "sim" / "check.py"), *args), log, bundle.path, timeout)


def last_line(completed: Completed, what: str) -> str:
    """The last line a successful command printed. Raises InputError with that line when it failed."""
    line = completed.tail[-1] if completed.tail else "no output"
    if completed.status:
        raise InputError(f"{what} must succeed, not exit with {completed.status}: {line.removeprefix('error: ')}")
    return line
