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
    for candidate in (_PACKAGE / "_assets" / folder, _PACKAGE.parent / folder):
        if candidate.is_dir():
            return candidate
    raise InputError(f"asset folder {folder!r} must come with the package, not be missing; reinstall codesign")
