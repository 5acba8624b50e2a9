# SPDX-License-Identifier: Apache-2.0
"""Files that a command writes: checked before the work, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from codesign.errors import InputError, reason


def refuse_special(path: Path, what: str) -> None:
    """Raise InputError when `path` is a folder or a device: to replace one by a file would destroy it."""
    if os.path.lexists(path) and not path.is_file():
        raise InputError(f"{what} {path} must be a file, not a folder or a device; choose another name")


def check_target(path: Path, what: str) -> None:
    """Raise InputError when no file can be made at `path`; `what` says what is to be written there ("trace")."""
    refuse_special(path, what)
    part = part_of(path)
    try:
        part.touch()
        part.unlink()
    except OSError as error:
        raise _cannot_write(path, what, error) from None


def write_whole(path: Path, content: bytes, what: str) -> None:
    """Write a file under a temporary name, then rename it. Raises InputError when that fails; nothing is left then."""
    refuse_special(path, what)
    part = part_of(path)
    try:
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(path, what, error) from None


def part_of(path: Path) -> Path:
    """The temporary name: beside `path`, hidden, of this process."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _cannot_write(path: Path, what: str, error: OSError) -> InputError:
    return InputError(f"{what} {path} must have room and be writable: {reason(error)}; choose another place")
