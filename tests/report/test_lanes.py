# SPDX-License-Identifier: Apache-2.0
"""Lanes and roofline on a run made by hand: what is drawn is what happened."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from codesign.emit.manifest import BufferTensor, ExpertWidth, InstructionInfo, Task, TensorKind, TracedProgram
from codesign.engines import InstructionEstimate, TaskEstimate, TaskProfile
from codesign.engines.timeline import parse_trace
from codesign.report.frame import Frame, Kind, kinds
from codesign.report.lanes import lanes, per_cycle
from codesign.report.roofline import Roofs, chart, roofline, whole_frame
from codesign.report.spending import cycles
from codesign.schedule.isa import Opcode
from codesign.spec import Readout

TRACE = """codesign-trace 1
D 10 0
B 10 load
E 90 load
C 100 0
D 95 1
W 100 100 0 0 0 40 10 0 8 50 100 0 0 0 0 0 0
B 120 norm
D 130 2
C 150 1
W 200 100 60 20 10 5 5 25 16 100 0 0 0 0 0 0 30
E 230 norm
C 300 2
W 300 100 100 0 0 0 0 0 0 0 0 0 0 0 0 0 0
S 300 0
"""
NAMES = (("image", "LOAD", 0), ("block0.norm1", "NORM", 0), ("block0.fc1", "LINEAR", 30000))
ROOFS = Roofs(peak=256.0, memory=4.0, ports=8.0)


def _frame(simulated: bool) -> Frame:
    result = BufferTensor(
        tensor="y", kind=TensorKind.MATRIX, offset=0, first_row=0, rows=1, columns=1, row_elements=8, dtype="int16",
        scale=1.0, instruction=2,
    )  # fmt: skip
    infos = tuple(InstructionInfo(name=n, opcode=o, macs=m, read_bytes=64) for n, o, m in NAMES)
    traced = TracedProgram(program_addr=0, num_instructions=3, output_bytes=16, tensors=())
    task = Task(
        name="semseg", width=ExpertWidth.STORED, program_addr=0, num_instructions=3, output_bytes=16, macs=30000,
        result=result, classes=1, cells=1, first_row=0, readout=Readout.VALUE, instructions=infos, traced=traced,
    )  # fmt: skip
    times = ((90, 0, 90, 0, 0), (0, 0, 0, 0, 0), (160, 120, 10, 20, 10))
    reads = (1000, 100, 400)
    rows = tuple(InstructionEstimate(*n, *t, r, 0) for n, t, r in zip(NAMES, times, reads, strict=True))
    estimate = TaskEstimate("semseg", ExpertWidth.STORED, 250, 30000, 117.2, 375.0, rows)
    profile = TaskProfile(
        "semseg", ExpertWidth.STORED, (100.0, 50.0, 150.0), 1600.0, 64.0, 160.0, 30.0, 45.0, 15.0, 25.0
    )
    return Frame(task, estimate, profile, parse_trace(TRACE)) if simulated else Frame(task, estimate, None, None)


def test_a_norm_counts_for_the_instruction_after_it() -> None:
    frame = _frame(simulated=True)
    assert frame.instruction_cycles == (100.0, 0.0, 200.0)
    spent = frame.spent
    assert spent is not None
    assert [one.slots for one in spent] == [0.0, 0.0, 190.0]
    assert [one.wait_blocks for one in spent] == [40.0, 0.0, 5.0]
    assert [one.other for one in spent] == [50.0, 0.0, 0.0]


def test_sources_of_the_numbers() -> None:
    measured, guessed = _frame(simulated=True), _frame(simulated=False)
    assert (measured.cycles, measured.read_bytes) == (300.0, 1600.0)
    assert (guessed.cycles, guessed.read_bytes) == (250.0, 1500.0)
    assert guessed.instruction_cycles == (90.0, 0.0, 160.0)
    assert guessed.spent is None
    assert [kind.name for kind in kinds(measured)] == ["fc1", "image", "norm1"]
    assert replace(measured, trace=None).instruction_cycles == (100.0, 0.0, 200.0)


def test_counts_per_cycle() -> None:
    trace = parse_trace(TRACE)
    mean = per_cycle(trace, [0, 90, 100], np.array([0.0, 150.0, 200.0, 300.0]))
    np.testing.assert_allclose(mean, [0.3, 0.9, 1.0])


def test_every_lane_is_there() -> None:
    frame = _frame(simulated=True)
    assert frame.trace is not None
    root = ET.fromstring(lanes(frame, frame.trace, ports=2, fifo_blocks=32, clock_mhz=100.0))
    texts = {e.text for e in root.iter("text")}
    assert {
        "instruction",
        "array",
        "norm",
        "router",
        "load",
        "store",
        "AXI port 0",
        "AXI port 1",
        "block FIFO",
    } <= texts
    assert {"AXI port 2", "AXI port 3"} & texts == set()
    assert {"16 B/cycle", "32 blocks", "0", "100", "300", "3", "time in µs"} <= texts
    titles = {e.text for e in root.iter("title")}
    assert titles == {
        "LOAD image: cycles 10 to 100 (90)",
        "LINEAR block0.fc1: cycles 130 to 300 (170)",
        "array: dense layer, 160 of 300 cycles",
        "array: attention, 30 of 300 cycles",
        "array: waits for weights, 45 of 300 cycles",
        "array: waits for rows, 15 of 300 cycles",
        "norm: busy in 110 of 300 cycles",
        "load: busy in 80 of 300 cycles",
        "AXI port 0: 2,400 bytes read",
        "AXI port 1: 1,600 bytes read",
        "block FIFO: at most 16 of 32 blocks",
    }


def test_the_frame_says_where_its_cycles_come_from() -> None:
    assert whole_frame(_frame(simulated=True), ROOFS).label == "whole frame, RTL: 100"
    assert whole_frame(_frame(simulated=False), ROOFS).label == "whole frame, estimate: 120"
    html = roofline([_frame(simulated=True)], ROOFS)
    assert "semseg: 0.75 times the roofline, cycles measured in RTL" in html  # 300 / (1600 / 4)
    assert "cycles estimated: no RTL simulation yet" in roofline([_frame(simulated=False)], ROOFS)


def test_roofs() -> None:
    assert [ROOFS.at(x) for x in (1.0, 64.0, 1000.0)] == [4.0, 256.0, 256.0]
    assert Roofs(256.0, 16.0, 8.0).supply == 8.0


def test_points_have_their_places() -> None:
    whole = whole_frame(_frame(simulated=True), ROOFS)
    parts = [
        replace(whole, label="low", intensity=10.0, rate=20.0, share=0.25),
        replace(whole, label="high", intensity=100.0, rate=200.0, share=0.25),
        replace(whole, label="free", intensity=float("inf"), rate=20.0, share=0.25),
        replace(whole, label="too", intensity=101.0, rate=202.0, share=0.25),
    ]
    root = ET.fromstring(chart(whole, parts, ROOFS, "x"))
    places = [(float(e.attrib["cx"]), float(e.attrib["cy"])) for e in root.iter("circle")]
    (low_x, low_y), (high_x, high_y), (free_x, free_y), _ = places
    lines = [{k: float(v) for k, v in e.attrib.items() if k[1] in "12"} for e in root.iter("line")]
    roofs = [line for line, e in zip(lines, root.iter("line"), strict=True) if e.attrib["stroke-width"] == "2"]
    slope, flat = roofs
    assert (slope["y2"] - slope["y1"]) / (slope["x2"] - slope["x1"]) == pytest.approx(
        (high_y - low_y) / (high_x - low_x), rel=0.01
    )  # both rise tenfold over a decade
    assert flat["y1"] == flat["y2"]
    assert (slope["x2"], slope["y2"]) == (flat["x1"], flat["y1"])
    assert free_x == flat["x2"] > high_x
    assert free_y == low_y
    texts = [e.text for e in root.iter("text")]
    assert "high, too" in texts
    assert {"low", "free", whole.label, "memory: 4 bytes/cycle", "AXI ports: 8 bytes/cycle"} <= set(texts)


def test_the_table_adds_up() -> None:
    html = cycles([_frame(simulated=True)], 256)
    assert "semseg: 300 cycles measured in 3 macro-instructions, 250 estimated (-16.7%)" in html
    assert "works on dense layers 53.3%, on attention 10.0%, waits for weights 15.0%, for rows 5.0%" in html
    table = ET.fromstring(html[html.index("<table") : html.index("</table>") + 8].replace("colspan=4", "").replace(
        "colspan=5 class=g", "").replace("class=n", ""))  # fmt: skip
    rows = {row[0].text: [cell.text or "" for cell in row[1:]] for row in table if row[0].tag == "td"}
    assert rows["all"] == ["", "3", "30,000", "300", "190", "45", "15", "50", "250", "120", "100", "20", "10", "39.1%"]
    assert rows["image"][:8] == ["LOAD", "1", "0", "100", "0", "40", "10", "50"]
    assert "norm1" not in rows


def test_an_estimate_has_no_measured_columns() -> None:
    html = cycles([_frame(simulated=False)], 256)
    assert "No RTL simulation yet" in html
    assert "measured in RTL" not in html
    assert "semseg: 250 cycles estimated, 3 macro-instructions" in html


def test_kinds_know_their_work() -> None:
    found = Kind("x", Opcode.LINEAR, _frame(simulated=False).estimate.instructions, 250.0, None)
    assert (found.macs, found.read_bytes) == (30000, 1500)
