# SPDX-License-Identifier: Apache-2.0
"""Finds the top-level asset folders (`hls`, `rtl`, `boards`, `models`, ...) in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from codesign.errors import InputError

_PACKAGE = Path(__file__).resolve().parent


def asset(folder: str) -> Path:
    """The path of an asset folder: inside the installed package (wheel), else beside it (checkout).

    Raises InputError when neither exists.
    """
    path = _find(folder)
    if path is None or not path.is_dir():
        raise InputError(f"asset folder {folder!r} must come with the package, not be missing; reinstall codesign")
    return path


def licence() -> Path:
    """The licence text, which travels with everything that we hand on. Raises InputError when it is missing."""
    path = _find("LICENSE")
    if path is None:
        raise InputError("LICENSE must come with the package, not be missing; reinstall codesign")
    return path


def _find(name: str) -> Path | None:
    candidates = (_PACKAGE / "_assets" / name, _PACKAGE.parent / name)
    return next((path for path in candidates if path.exists()), None)
