# SPDX-License-Identifier: Apache-2.0
"""What an operating system's refusal becomes in a line for the user."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from codesign.errors import reason

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FULL, "No space left on device"),
        (shutil.Error([("a", "b", f"[Errno 28] {FULL.strerror}: 'a' -> 'b'"), ("c", "d", "x")]), FULL.strerror),
        (OSError("100 requested and\n0 written"), "100 requested and 0 written"),
    ],
)
def test_reason(error: OSError, text: str) -> None:
    assert reason(error) == text
