# SPDX-License-Identifier: Apache-2.0
"""Other programs: found or named, bounded in time, and gone when we are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codesign.engines import toolchain
from codesign.engines.toolchain import PACKAGE_OF, Command, Tool
from codesign.errors import InputError


def python(tmp_path: Path, code: str, timeout: float = 30.0, name: str = "log") -> Command:
    return Command(Tool.PYTHON, ("-c", code), tmp_path / name, tmp_path, timeout)


def test_every_tool_has_a_package() -> None:
    assert set(PACKAGE_OF) == set(Tool)


def test_status_and_last_lines(tmp_path: Path) -> None:
    done = toolchain.run(python(tmp_path, "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"))
    assert done.status == 3
    assert sorted(done.tail) == ["one", "two"]


def test_results_come_in_order_and_jobs_run_side_by_side(tmp_path: Path) -> None:
    code = "import time; time.sleep({}); print({})"
    commands = [python(tmp_path, code.format(0.6 if i == 0 else 0, i), name=f"log{i}") for i in range(3)]
    polls = []
    done = toolchain.run_all(commands, 2, lambda: polls.append(1))
    assert [one.tail for one in done] == [("0",), ("1",), ("2",)]
    assert polls


@pytest.mark.parametrize("tool", [Tool.GXX, Tool.MAKE])
def test_missing_tool(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(InputError) as caught:
        toolchain.find(tool)
    assert str(caught.value) == f"{tool.value} must be installed, and it was not found; install {PACKAGE_OF[tool]}"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


SPAWN = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("pid.part", "w").write(str(child.pid))
import os; os.rename("pid.part", "pid")
time.sleep(600)
"""


def test_time_limit_ends_the_whole_family(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end within 3 s, and it did not; see .*log"):
        toolchain.run(python(tmp_path, SPAWN, timeout=3.0))
    grandchild = int((tmp_path / "pid").read_text(encoding="utf-8"))
    wait_for(lambda: not alive(grandchild))


def test_interrupt_ends_the_whole_family(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from codesign.engines import toolchain as t\n"
        f"t.run(t.Command(t.Tool.PYTHON, ('-c', {SPAWN!r}), Path('log'), Path('.'), 600.0))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.DEVNULL)
    wait_for((tmp_path / "pid").exists)
    grandchild = int((tmp_path / "pid").read_text(encoding="utf-8"))
    os.kill(parent.pid, signal.SIGINT)
    assert parent.wait(timeout=20) != 0
    wait_for(lambda: not alive(grandchild))
