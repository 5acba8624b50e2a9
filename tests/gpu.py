# SPDX-License-Identifier: Apache-2.0
"""What tests of the GPU's kernels share. Without a GPU they run in Triton's interpreter: see conftest.py."""

from __future__ import annotations

from functools import cache

import pytest

from codesign.kernels.gpu.ops import DEVICE_TILES, Ops, Tiles

pytest.importorskip("torch")
pytest.importorskip("triton")

TILES = {"small": DEVICE_TILES, "large": None}
"""Those of a GPU, and those of the interpreter: on a GPU both are its own."""


@cache
def ops_of(tiles: Tiles | None = None) -> Ops:
    return Ops(tiles=tiles)
