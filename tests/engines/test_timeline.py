# SPDX-License-Identifier: Apache-2.0
"""The timeline of a run: every track is there, times are in microseconds, damaged traces are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from codesign.emit.manifest import InstructionInfo
from codesign.engines.timeline import parse_trace, perfetto
from codesign.errors import InputError

TRACE = """codesign-trace 1
D 10 0
B 10 load
E 90 load
C 91 0
D 95 1
W 100 100 0 0 0 40 10 0 7 50 50 0 0 0 0 0 0
B 120 norm
D 130 2
W 200 100 60 20 10 5 5 25 9 100 0 0 0 0 0 0 30
C 210 1
E 230 norm
W 260 60 50 0 0 0 0 0 3 0 0 0 0 0 0 0 0
C 255 2
S 260 0
"""
INSTRUCTIONS = (
    InstructionInfo(name="image", opcode="LOAD", macs=0, read_bytes=64),
    InstructionInfo(name="block0.mlp", opcode="LINEAR", macs=5000, read_bytes=512),
    InstructionInfo(name="block1.norm", opcode="NORM", macs=0, read_bytes=16),
)


def events(trace: str = TRACE, count: int = 3) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(perfetto(parse_trace(trace), INSTRUCTIONS[:count], 200.0))["traceEvents"]
    return found


def spans(found: list[dict[str, Any]]) -> dict[str, list[tuple[str, float, float]]]:
    """By track: name, begin and end in clock cycles of 5 ns."""
    names = {e["tid"]: e["args"]["name"] for e in found if e["name"] == "thread_name"}
    tracks: dict[str, list[tuple[str, float, float]]] = {name: [] for name in names.values()}
    for e in found:
        if e["ph"] == "X":
            tracks[names[e["tid"]]].append((e["name"], round(e["ts"] * 200), round((e["ts"] + e["dur"]) * 200)))
    return tracks


def test_tracks() -> None:
    assert spans(events()) == {
        "array": [("block0.mlp", 95, 210)],
        "array state": [("idle", 0, 100), ("computes", 100, 260)],
        "softmax": [("softmax", 100, 200)],
        "norm": [("block1.norm", 120, 230)],
        "router": [],
        "load": [("image", 10, 90)],
        "store": [],
    }


def test_counters() -> None:
    found = [e for e in events() if e["ph"] == "C" and e["ts"] == 0.5]
    values = {e["name"]: e["args"] for e in found}
    assert values["array %"] == {"dense": 60.0, "scores": 20.0, "softmax": 10.0}
    assert values["array waits %"] == {"for blocks": 5.0, "for rows": 5.0}
    assert values["K and V words %"] == {"read": 25.0}
    assert values["block FIFO"] == {"blocks": 9}
    assert values["AXI port 0, bytes a cycle"] == {"read": 16.0, "written": 0.0}
    assert values["AXI port 3, bytes a cycle"] == {"read": 0.0, "written": 4.8}


def test_a_traced_program_is_numbered() -> None:
    assert [name for name, *_ in spans(events(count=2))["array"]] == ["instruction 0", "instruction 1", "instruction 2"]


def test_a_unit_that_is_still_busy_ends_with_the_run() -> None:
    assert spans(events(TRACE.replace("E 230 norm\n", "")))["norm"] == [("norm", 120, 260)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a trace must begin with 'codesign-trace 1', not 'nothing'; trace the run again"),
        (TRACE.replace("S 260 0\n", ""), "a trace must end with the record S, and it does not; let the run end"),
        (
            TRACE.replace("E 90 load", "E 90"),
            "a trace must hold the records of trace.cpp, and one is damaged: list index out of range; trace again",
        ),
        (
            TRACE.replace(" 7 50 50 0 0 0 0 0 0", " 7"),
            "a trace must hold the records of trace.cpp, and one is damaged: a window of 9 numbers; trace again",
        ),
        (
            TRACE.replace("D 95 1", "X 95 1"),
            "a trace must hold the records of trace.cpp, and one is damaged: record 'X'; trace again",
        ),
    ],
)
def test_bad_trace(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_trace(text)
    assert str(error.value) == message
