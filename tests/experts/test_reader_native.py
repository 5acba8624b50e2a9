# SPDX-License-Identifier: Apache-2.0
"""The C++ of reader and mixture layers under the address and the thread sanitizer (kernels/tests)."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
READER = tuple(f"src/reader_{name}.cpp" for name in ("arena", "core", "file", "queue", "threads", "uring"))
MIXTURE = tuple(f"src/mixture{name}.cpp" for name in ("", "_pass", "_residency", "_schedule", "_stream"))
LEVELS = ("src/cpu.cpp", "src/pool.cpp", *sorted(f"src/{path.name}" for path in KERNELS.glob("src/levels_*.cpp")))
VECTORS = tuple(
    f"-m{name}" for name in ["avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx512vnni", "gfni"]
)
X86 = {"_avx2": ("-mavx2", "-mfma"), "_avx512": VECTORS, "_amx": (*VECTORS, "-mamx-tile", "-mamx-int8")}
ARM: dict[str, tuple[str, ...]] = {"_neon": ()}
SANITIZERS = ("address,undefined", "thread")


def run_test(folder: Path, sanitizer: str, test: str, *sources: str) -> None:
    """Compile kernels/tests/<test>.cpp with sources, each for the instructions that it is written for, and run it."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    flags = ["-std=c++20", "-O1", "-g1", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-pthread"]
    own, other = (X86, ARM) if platform.machine() in ("x86_64", "AMD64") else (ARM, X86)
    made = []
    for source in (*sources, f"tests/{test}.cpp"):
        name = Path(source).stem
        if any(kind in name for kind in other):
            continue
        instructions = next((some for kind, some in own.items() if kind in name), ())
        made.append(str(folder / f"{name}.o"))
        command = [compiler, *flags, *instructions, "-I", str(KERNELS / "include"), "-c", str(KERNELS / source)]
        subprocess.run([*command, "-o", made[-1]], check=True)
    program = folder / test
    subprocess.run([compiler, *flags, *made, "-o", str(program)], check=True)
    done = subprocess.run([program, folder], capture_output=True, text=True, timeout=240)
    assert done.stdout == "good\n", done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_the_reader_under_a_sanitizer(tmp_path: Path, sanitizer: str) -> None:
    run_test(tmp_path, sanitizer, "reader_test", *READER, "src/crc32c.cpp")


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_mixture_layers_under_a_sanitizer(tmp_path: Path, sanitizer: str) -> None:
    run_test(tmp_path, sanitizer, "mixture_test", *READER, *MIXTURE, *LEVELS, "src/crc32c.cpp")
