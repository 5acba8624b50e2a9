# SPDX-License-Identifier: Apache-2.0
"""The C++ test of the operators (kernels/tests/operators_test.cpp) under sanitizers, and on an emulated ARM one."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
ANY = [
    "cpu.cpp",
    "gemm_pack.cpp",
    "gemm_portable.cpp",
    "operators.cpp",
    "plan.cpp",
    "plan_attention.cpp",
    "plan_experts.cpp",
    "plan_steps.cpp",
    "pool.cpp",
]
AVX512 = [
    "-mavx2",
    "-mfma",
    "-mavx512f",
    "-mavx512bw",
    "-mavx512dq",
    "-mavx512vl",
    "-mavx512vbmi",
    "-mavx512vnni",
    "-mgfni",
]
X86 = (
    (("gemm_avx2.cpp",), ("-mavx2", "-mfma")),
    (
        ("gemm_avx512.cpp", "gemm_store_avx512.cpp", "operators_avx512.cpp", "pack_avx512.cpp", "softmax_avx512.cpp"),
        tuple(AVX512),
    ),
    (("gemm_amx.cpp",), (*AVX512, "-mamx-tile", "-mamx-int8")),
)
ARM = ((("gemm_neon.cpp",), ()),)
COMMON = ("-std=c++20", "-ffp-contract=off", "-pthread", f"-I{KERNELS / 'include'}")


def build(folder: Path, compiler: str, machine: str, *flags: str) -> Path:
    """The test program, each file compiled for the instructions that it is written for."""
    own = X86 if machine in ("x86_64", "AMD64") else ARM
    for sources, instructions in (((*ANY, "../tests/operators_test.cpp"), ()), *own):
        files = [str((KERNELS / "src" / source).resolve()) for source in sources]
        run([compiler, *COMMON, *flags, *instructions, "-c", *files], folder)
    program = folder / "operators_test"
    run([compiler, *COMMON, *flags, *map(str, sorted(folder.glob("*.o"))), "-o", str(program)], folder)
    return program


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "flags",
    [("-fsanitize=address,undefined", "-fno-sanitize-recover=all"), ("-fsanitize=thread",)],
    ids=["address", "thread"],
)
def test_under_sanitizers(tmp_path: Path, flags: tuple[str, ...]) -> None:
    program = build(tmp_path, "g++", platform.machine(), "-O1", "-g1", *flags)
    assert "variants agree" in run([str(program)], tmp_path)


@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")),
    reason="needs g++-aarch64-linux-gnu and qemu-user",
)
@pytest.mark.parametrize("cpu", ["cortex-a53", "max"])
def test_on_an_emulated_arm(tmp_path: Path, cpu: str) -> None:
    """cortex-a53, the boards' processor, has no dot product instruction; `max` has."""
    program = build(tmp_path, "aarch64-linux-gnu-g++", "aarch64", "-O2", "-static")
    assert run(["qemu-aarch64", "-cpu", cpu, str(program)], tmp_path) == "2 variants agree\n"
