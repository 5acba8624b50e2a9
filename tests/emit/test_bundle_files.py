# SPDX-License-Identifier: Apache-2.0
"""The bundle's own files: a copy of the folder simulates and tests itself, without codesign."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from codesign.engines import Engine
from tests.conftest import restamp, take_build

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "CODESIGN"))}


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", str(folder), f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=900, check=False)


def test_nothing_in_it_imports_codesign(bundle: Path) -> None:
    for file in bundle.rglob("*.py"):
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        assert not [line for line in lines if line.startswith(("import codesign", "from codesign"))], file


def test_licences_travel_along(bundle: Path) -> None:
    assert "Apache" in (bundle / "LICENSE").read_text(encoding="utf-8")
    assert "Apache" in (bundle / "hls" / "ap_types" / "ap_int.h").read_text(encoding="utf-8")[:3000]


def test_readme_names_the_design(bundle: Path) -> None:
    text = (bundle / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# random on zcu104\n")
    for word in ("make csim", "make rtlsim", "pytest test_bundle.py", "semseg, depth", "xczu7ev-ffvc1156-2-e"):
        assert word in text
    for line in text.splitlines():
        for name in ("manifest.json", "hls/", "rtl/", "sim/", "data/memory.bin", "driver/driver.py"):
            if f"`{name}`" in line:
                assert (bundle / name).exists()


def test_make_csim(copy: Path) -> None:
    done = make(copy, "csim")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "csim: 6 runs, bit exact" in done.stdout
    file = copy / "data" / "golden_semseg.npy"
    buffers = np.load(file)
    buffers[1, 2] ^= 1  # image 1, the low byte of element 1
    np.save(file, buffers)
    done = make(copy, "csim", "IMAGES=2")
    assert done.returncode == 2  # make's own status for a failed recipe
    assert "task semseg (stored), image 1: semseg[0, 1] is " in done.stdout
    assert "csim: 4 runs, 1 DIFFERENT" in done.stdout


def test_pytest_in_a_copy_runs_both_engines(bundle: Path, copy: Path) -> None:
    for engine in (Engine.CSIM, Engine.RTLSIM):
        take_build(bundle, engine, copy)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_bundle.py"]
    done = subprocess.run(command, cwd=copy, env=ENVIRONMENT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    file = copy / "data" / "memory.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    done = subprocess.run(command, cwd=copy, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "data/memory.bin" in done.stdout


def test_missing_tool_is_one_line(copy: Path) -> None:
    script = str(copy / "sim" / "check.py")
    environment = {**ENVIRONMENT, "PATH": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, script, "csim"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: g++ must be installed, and it was not found; install the Debian package g++\n"


def test_build_is_taken_along_and_redone_when_a_source_changes(copy: Path) -> None:
    script, moved = ("sim", "check.py"), copy.with_name("moved")
    command = [sys.executable, str(copy.joinpath(*script)), "build", "csim"]
    first = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    stamp = first.stat().st_mtime_ns
    shutil.move(copy, moved)
    command[1] = str(moved.joinpath(*script))
    second = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    assert second == moved / "build" / "csim" / "csim"
    assert second.stat().st_mtime_ns == stamp
    source = moved / "hls" / "src" / "top.cpp"
    source.write_text(source.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    restamp(moved)
    subprocess.run(command, capture_output=True, text=True, check=True)
    assert second.stat().st_mtime_ns != stamp
