# SPDX-License-Identifier: Apache-2.0
"""CRC-32C by the native module."""

from __future__ import annotations

from codesign.experts.file.blocks import Bytes
from codesign.kernels.native import native


def crc32c(data: Bytes) -> int:
    """The CRC-32C of contiguous bytes. Raises InputError when the native module is missing."""
    return int(native().crc32c(data))
