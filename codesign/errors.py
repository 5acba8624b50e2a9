# SPDX-License-Identifier: Apache-2.0
"""The two ways a command ends badly: the user's input is wrong (exit status 2), or a check failed (exit status 1)."""

from __future__ import annotations

import shutil


class CodesignError(Exception):
    """Base of every error that is shown to the user as one line, without a traceback."""

    exit_status = 2


class InputError(CodesignError):
    """Something handed to us is wrong. The message says what must hold, what was found, and the remedy."""


class CheckError(CodesignError):
    """A comparison came out unequal, or a limit was missed: the command ran and the verdict is red."""

    exit_status = 1


def reason(error: OSError) -> str:
    """Why the system refused, in a few words also where it did so for many files at once or without a number."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return str(error.args[0][0][-1]).split("] ")[-1].split(": ")[0]
    return error.strerror or " ".join(str(error).split())
