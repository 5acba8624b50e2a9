# SPDX-License-Identifier: Apache-2.0
"""The command line end to end: what it prints, what it leaves, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

import codesign
from codesign.cli import main
from tests.conftest import one_line, restamp


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """(status, stdout) of a command that says nothing on stderr."""
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert err == ""
    return int(caught.value.code or 0), out


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"codesign {codesign.__version__}\n")
    status, out = run(capsys)
    assert status == 0
    for command in ("demo", "train", "export", "generate", "simulate", "report"):
        assert f"  {command} " in out
        assert "--json" in run(capsys, command, "--help")[1]


def test_python_m() -> None:
    done = subprocess.run([sys.executable, "-m", "codesign", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"codesign {codesign.__version__}\n"


def test_generate_simulate_report(
    exported: onnx.ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, bundle = tmp_path / "model.onnx", tmp_path / "deep" / "bundle"
    onnx.save(exported, str(model))
    status, out = run(capsys, "generate", model, "--out", bundle, "--array", "16x16", "--json")
    assert (status, json.loads(out)) == (0, {"bundle": str(bundle)})
    status, out = run(capsys, "simulate", bundle, "--engine", "csim", "--limit", "2", "--json")
    content = json.loads(out)
    assert (status, content["bit_exact"], content["images"], content["tasks"]) == (0, True, 2, ["semseg", "depth"])
    status, out = run(capsys, "simulate", bundle, "--engine", "reference", "--task", "depth")
    assert status == 0
    assert "reference" in out
    assert "yes" in out
    status, out = run(capsys, "report", bundle, "--json")
    assert status == 0
    assert Path(json.loads(out)["report"]).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_status_1_names_the_difference(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copy / "data" / "golden_depth.npy"
    content = bytearray(file.read_bytes())
    content[128] ^= 1  # the header of a .npy file has 128 bytes
    file.write_bytes(content)
    restamp(copy)
    status, out = run(capsys, "simulate", copy, "--engine", "reference")
    assert status == 1
    assert "NO" in out
    assert "reference: task depth, image 0: depth[0, 0] must be " in out
    status, out = run(capsys, "simulate", copy, "--engine", "reference", "--json")
    found = json.loads(out)
    assert (status, found["bit_exact"], len(found["mismatches"])) == (1, False, 1)
    assert found["mismatches"][0]["index"] == [0, 0]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_interrupt(kind: signal.Signals, copy: Path) -> None:
    """Ctrl-C while g++ works: one line, status 130, no child, no temporary folder."""
    command = [sys.executable, "-m", "codesign", "simulate", str(copy), "--engine", "csim"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (copy / "build" / "csim" / "build.log").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(process.pid, kind)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert one_line(err) == "error: interrupted"
    assert not list((copy / "build").glob("csim-*"))
    commands = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.parent.name != str(os.getpid())]
    assert not [c for c in commands if str(copy).encode() in c and b"cc1plus" in c]


def test_closed_pipe(copy: Path) -> None:
    """`codesign ... | head` ends quietly."""
    command = [sys.executable, "-m", "codesign", "simulate", str(copy), "--engine", "reference", "--json"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writer)
    assert "Traceback" not in done.stderr
