# SPDX-License-Identifier: Apache-2.0
"""Every kernel compiles to machine code of the GPUs that are meant: Ampere (80), Jetson Orin (87) and Hopper (90)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parents[2]
PRODUCTS = ("product", "attention")


@pytest.mark.parametrize("target", ["80", "87", "90"])
def test_every_kernel_compiles_without_a_gpu(target: str, tmp_path: Path) -> None:
    """In a process of its own: in this one Triton interprets."""
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.kernels.gpu_targets", target],
        cwd=ROOT, env=kept | {"TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)[target]
    assert len(found) == 16
    for name, instructions in found.items():
        assert (instructions > 0) == name.startswith(PRODUCTS), name  # products of int8 run on the matrix units
