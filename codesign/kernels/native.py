# SPDX-License-Identifier: Apache-2.0
"""The native module, and which of its variants this processor can run."""

from __future__ import annotations

import importlib
from enum import StrEnum
from types import ModuleType
from typing import Any

from codesign.errors import InputError

MAX_THREADS = 1024


class Variant(StrEnum):
    """An instruction set that kernels are written for, in ascending order of speed; all compute the same bits."""

    PORTABLE = "portable"
    NEON = "neon"
    AVX2 = "avx2"
    AVX512_VNNI = "avx512_vnni"
    AMX_INT8 = "amx_int8"

    @property
    def native(self) -> Any:
        """The member of the native module's enumeration. Raises InputError when the module is missing."""
        return getattr(native().Variant, self.name)


def native() -> ModuleType:
    """The module of the C++ kernels. Raises InputError when the package was installed without a compiler."""
    try:
        return importlib.import_module("codesign.kernels._native")
    except ImportError as error:
        if getattr(error, "name", None) not in (None, "codesign.kernels._native"):
            raise
        reason = "it is missing" if isinstance(error, ModuleNotFoundError) else str(error)
        raise InputError(
            f"the native kernels must be compiled for this Python, and {reason};"
            " reinstall codesign with a C++20 compiler"
        ) from None


def variants() -> tuple[Variant, ...]:
    """The variants that this processor can run, the fastest last. Raises InputError without the native module."""
    module = native()
    return tuple(variant for variant in Variant if module.available(variant.native))


def choose_variant(name: str | None = None) -> Variant:
    """The variant of that name, the fastest one without a name.

    Raises InputError when this processor cannot run it, or without the native module.
    """
    able = variants()
    if name is None:
        return able[-1]
    if name not in able:
        raise InputError(
            f"variant must be one of {', '.join(able)} on this processor, not {str(name)!r}; choose one of those"
        )
    return Variant(name)


def checked_threads(threads: int) -> int:
    """The number of threads. Raises InputError when it is not in 1..1024."""
    if not 1 <= threads <= MAX_THREADS:
        raise InputError(f"threads must be in 1..{MAX_THREADS}, not {threads}; the number of cores is a good choice")
    return threads
