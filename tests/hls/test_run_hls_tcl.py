# SPDX-License-Identifier: Apache-2.0
"""The Vitis HLS script, executed by Tcl with the tool's own commands recorded instead of run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from codesign.emit.params import render_template

tkinter = pytest.importorskip("tkinter", reason="Python was built without Tcl")

SETUP = ("open_project", "set_top", "add_files", "add_files", "open_solution", "set_part", "create_clock")
STEPS = ("csim_design", "csynth_design", "cosim_design", "export_design")
COMMANDS = (*SETUP, "config_interface", "config_rtl", *STEPS)
VIEW = {"version": "0.0.1", "design_hash": 0x1234, "part": "xczu7ev-ffvc1156-2-e", "clock_mhz": 300.0}
MANIFEST = """{
 "image": {"height": 8, "row_bytes": 32, "bytes": 96}, "memory": {"file": "data/memory.bin", "bytes": 64},
 "tasks": [{"name": "a", "program_addr": 12, "num_instructions": 40, "output_bytes": 160,
  "traced": {"program_addr": 900, "num_instructions": 70, "output_bytes": 1000}}]}
"""
Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run(*arguments)`: the exit status and the commands the script gave."""
    monkeypatch.chdir(tmp_path)  # the script changes directory, and monkeypatch changes back
    (tmp_path / "hls").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "memory.bin").write_bytes(bytes(64))
    (tmp_path / "manifest.json").write_text(MANIFEST)
    script = tmp_path / "hls" / "run_hls.tcl"
    script.write_text(render_template("run_hls.tcl.j2", VIEW))

    def execute(*arguments: str, cosim: bytes = b"same") -> tuple[int, list[str]]:
        tcl = tkinter.Tcl()
        tcl.eval("set record {}; set status -1")
        tcl.eval("proc exit {code} { set ::status $code; return -code error EXIT }")
        for command in COMMANDS:
            tcl.eval(f"proc {command} {{args}} {{ lappend ::record [concat {command} $args] }}")
        (tmp_path / "hls" / "csim.bin").write_bytes(b"same")
        (tmp_path / "hls" / "cosim.bin").write_bytes(cosim)
        tcl.setvar("argv", tcl.call("list", *arguments))
        tcl.call("catch", f"source {{{script}}}", "message")
        assert tcl.getvar("message") == "EXIT"
        return int(tcl.getvar("status")), list(tcl.splitlist(tcl.getvar("record")))

    return execute


def test_all_steps_by_default(run: Run, tmp_path: Path) -> None:
    status, commands = run("-f", "run_hls.tcl")
    assert status == 0
    assert tuple(c.split()[0] for c in commands) == COMMANDS
    assert "set_top codesign_top" in commands
    assert "set_part xczu7ev-ffvc1156-2-e" in commands
    assert "create_clock -period 300.0MHz -name default" in commands
    assert commands[0] == "open_project -reset project"
    assert "-DCODESIGN_DRAM_BEATS=1044" in commands[2]  # 64 + 96 + 160 bytes and four pages
    csim = next(c for c in commands if c.startswith("csim_design"))
    assert csim.rstrip("}").endswith("csim.bin 12 40 96 160 1")
    assert (tmp_path / "hls" / "input.bin").stat().st_size == 96
    assert any(c.startswith("export_design -format ip_catalog") for c in commands)


def test_one_step(run: Run) -> None:
    status, commands = run("-f", "/somewhere/run_hls.tcl", "export")
    assert status == 0
    assert [c.split()[0] for c in commands if "_design" in c] == ["export_design"]
    assert commands[0] == "open_project project"


def test_unknown_step(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    status, commands = run("-f", "run_hls.tcl", "synth")
    assert (status, commands) == (2, [])
    assert capfd.readouterr().err == "run_hls.tcl: a step must be one of csim csynth cosim export, not synth\n"


def test_cosim_must_equal_csim(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    status, _ = run("-f", "run_hls.tcl", "cosim", cosim=b"other")
    assert status == 2
    assert capfd.readouterr().err == "run_hls.tcl: the RTL's output cosim.bin must equal csim.bin, and it does not\n"
