# SPDX-License-Identifier: Apache-2.0
"""What a job can ask for beside results: a trace, waveforms, coverage, another memory, answers that never come."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from bundles import Case, Fault, check, run_job, share_build, write_bundle
from test_machine import SMALL, make_cases

from codesign.emit.manifest import InstructionInfo
from codesign.engines.timeline import Trace, parse_trace, perfetto
from codesign.schedule.isa import Instruction, Space, Status


@dataclass(frozen=True)
class Machine:
    """The machine of test_machine with its cases, built."""

    folder: Path
    cases: tuple[Case, ...]

    def case(self, name: str) -> Case:
        return next(case for case in self.cases if case.name == name)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("options") / "options-simd16_pe16"
    cases = make_cases(SMALL)
    write_bundle(folder, SMALL, cases)
    share_build(folder, "simd16_pe16")
    return Machine(folder, cases)


@pytest.fixture(scope="module")
def traced(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, dict[str, int], Trace]:
    """A case with every unit, its counters and its trace."""
    work, case = tmp_path_factory.mktemp("trace"), machine.case("block_33_48")
    (outcome,) = run_job(machine.folder, work / "job", SMALL, [case], trace=str(work / "traces"))
    return case, outcome.report, parse_trace((work / "traces" / "0.trace").read_text())


def test_windows_add_up_to_the_counters(traced: tuple[Case, dict[str, int], Trace]) -> None:
    _, report, trace = traced
    windows = trace.windows
    assert sum(w.length for w in windows) == trace.cycles
    assert sum(w.dense for w in windows) == report["dense_slots"] > 0
    assert sum(w.score for w in windows) == report["score_slots"] > 0
    assert sum(w.mix for w in windows) == report["mix_slots"] > 0
    assert sum(w.wait_blocks for w in windows) == report["wait_blocks_cycles"] > 0
    assert sum(w.wait_rows for w in windows) == report["wait_rows_cycles"]
    assert sum(w.kv_words for w in windows) == report["kv_words"] > 0
    assert [sum(w.read_beats[p] for w in windows) for p in range(4)] == report["read_beats"]
    assert [sum(w.write_beats[p] for w in windows) for p in range(4)] == report["write_beats"]
    assert max(w.fifo_level for w in windows) <= SMALL.fifo_blocks


def test_every_instruction_and_unit_is_traced(traced: tuple[Case, dict[str, int], Trace]) -> None:
    case, report, trace = traced
    assert list(trace.dispatched) == report["dispatch_cycles"]
    assert list(trace.completed) == report["complete_cycles"]
    assert len(trace.completed) == len(case.job.instructions)
    assert abs(trace.cycles - report["cycles"]) < 20
    for unit in ("norm", "router", "load", "store"):
        spans = [s for s in trace.busy if s.name == unit]
        assert sum(s.end - s.begin for s in spans) == report[f"{unit}_cycles"] > 0


def test_beats_are_those_of_the_program(traced: tuple[Case, dict[str, int], Trace]) -> None:
    """Every line of the Program and of its data once; of the experts, those with tokens and those read ahead."""
    case, report, _ = traced
    assert report["read_beats"][0] == report["read_beats"][1] > 0
    assert report["read_beats"][2:] == report["write_beats"][2:] == [0, 0]
    assert sum(report["write_beats"]) == case.job.output_lines * SMALL.ports


def test_the_timeline_has_it_all(traced: tuple[Case, dict[str, int], Trace]) -> None:
    case, _, trace = traced
    opcodes = [Instruction.decode(word).opcode.name for word in case.job.instructions]
    infos = [InstructionInfo(name=f"step{i}", opcode=o, macs=0, read_bytes=0) for i, o in enumerate(opcodes)]
    events = json.loads(perfetto(trace, infos, 300.0))["traceEvents"]
    names = {e["name"] for e in events}
    assert {info.name for info in infos} <= names
    assert {"softmax", "computes", "block FIFO", "AXI port 0, bytes a cycle"} <= names


def test_a_slower_memory_is_slower(machine: Machine, tmp_path: Path) -> None:
    case = machine.case("int8")
    (quick,) = run_job(machine.folder, tmp_path / "quick", SMALL, [case])
    (slow,) = run_job(machine.folder, tmp_path / "slow", SMALL, [case], dram={"latency_ns": 2000.0})
    assert slow.raw == quick.raw
    assert slow.report["cycles"] > quick.report["cycles"] + 400


def test_never_an_answer_is_a_hang(machine: Machine, tmp_path: Path) -> None:
    """And the simulation ends."""
    case = dataclasses.replace(machine.case("load_store"), faults=(Fault(Space.OUTPUT, 0, "w", "never"),))
    (outcome,) = run_job(machine.folder, tmp_path / "job", SMALL, [case])
    assert Status(outcome.report["status"]) is Status.HANG
    assert "store" in outcome.report["units"]


def test_waves(machine: Machine, tmp_path: Path) -> None:
    case, waves = machine.case("norm_9_48"), tmp_path / "waves.fst"
    (outcome,) = run_job(machine.folder, tmp_path / "job", SMALL, [case], waves=str(waves))
    assert Status(outcome.report["status"]) is Status.OK
    assert b"tb_machine" in hierarchy(waves.read_bytes())


def hierarchy(fst: bytes) -> bytes:
    """The hierarchy block (type 6) of an FST file, one LZ4 block; of that only what sim/lz4/lz4.h writes is decoded."""
    at = 0
    while fst[at] != 6:
        at += 1 + int.from_bytes(fst[at + 1 : at + 9], "big")
    size = int.from_bytes(fst[at + 9 : at + 17], "big")
    data = fst[at + 17 : at + 1 + int.from_bytes(fst[at + 1 : at + 9], "big")]
    if data[0] & 15 == 0 and data.startswith(b"\xf0\xff"):  # literals only
        assert data[-size:].count(0) > 10
        return data[-size:]
    return data


def test_coverage(machine: Machine, tmp_path: Path) -> None:
    for number, name in enumerate(("load_store", "block_33_48")):
        run_job(machine.folder, tmp_path / f"job{number}", SMALL, [machine.case(name)], coverage=True)
    files = [str(tmp_path / f"job{n}" / "coverage.dat") for n in range(2)]
    tables = [table(machine.folder, chosen) for chosen in (files[:1], files)]
    assert tables[0]["router"] < tables[1]["router"]
    assert all(tables[0][module] <= tables[1][module] for module in tables[0])
    assert {"unified_unit", "norm_unit", "axi_reader", "all"} <= tables[1].keys()


def table(folder: Path, files: list[str]) -> dict[str, float]:
    """Percent of the toggles by module."""
    command = [sys.executable, str(folder / "sim" / "check.py"), "coverage", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = (line.replace("%", "").split() for line in done.stdout.splitlines()[1:])
    return {row[0]: float(row[-1]) for row in rows if row[-1] != "-"}


def test_a_bad_coverage_file_is_named(machine: Machine, tmp_path: Path) -> None:
    bad = tmp_path / "bad.dat"
    bad.write_text("nothing")
    with pytest.raises(AssertionError, match="must be a coverage file of Verilator"):
        check(machine.folder, "coverage", str(bad))
