# SPDX-License-Identifier: Apache-2.0
"""The reader's C++ under the address and the thread sanitizer (kernels/tests/reader_test.cpp)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
SOURCES = ("arena", "core", "file", "queue", "threads", "uring")


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_under_a_sanitizer(tmp_path: Path, sanitizer: str) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    sources = [KERNELS / "src" / f"reader_{name}.cpp" for name in SOURCES]
    program = tmp_path / "reader_test"
    flags = ["-std=c++20", "-O1", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-pthread"]
    files = [*map(str, sources), str(KERNELS / "src" / "crc32c.cpp"), str(KERNELS / "tests" / "reader_test.cpp")]
    subprocess.run([compiler, *flags, "-I", str(KERNELS / "include"), *files, "-o", str(program)], check=True)
    done = subprocess.run([program, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.stdout == "good\n", done.stdout + done.stderr
    assert done.returncode == 0
