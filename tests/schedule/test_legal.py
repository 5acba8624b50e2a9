# SPDX-License-Identifier: Apache-2.0
"""The rules of an instruction's place: Programs at their bounds, which tests/hls and rtl_tests/ run on the machines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codesign.schedule.isa import Instruction, Opcode, Space
from codesign.schedule.legal import Before, first_violation, misplaced
from tests.hls.test_machine_csim import SIZES
from tests.legal_programs import Judged, Maker

PROGRAMS = tuple(Maker(SIZES[0], bytearray()).programs())


@pytest.mark.parametrize("judged", PROGRAMS, ids=lambda judged: judged.name)
def test_programs(judged: Judged) -> None:
    expected = None if judged.fault is None or judged.rule is None else (judged.fault, judged.rule)
    assert first_violation(judged.program, SIZES[0]) == expected


def test_every_rule_of_the_place_is_tried() -> None:
    broken = {judged.rule for judged in PROGRAMS}
    load, experts = Instruction(Opcode.LOAD, space=Space.OUTPUT, fence=1), Instruction(Opcode.EXPERTS, fence=1)
    places = (
        (load, Before()),
        (replace(load, fence=0), Before()),
        (replace(experts, fence=0), Before()),
        (replace(experts, fence=0), Before(1, route_end=1)),
        (replace(experts, rows=1), Before(1, route_end=1)),
        (replace(experts, num_experts=1), Before(1, route_end=1)),
    )
    rules = [misplaced(i, before) for i, before in places]
    assert len(set(rules)) == len(places)
    assert None not in rules
    assert set(rules) <= broken


def test_what_stands_before() -> None:
    before = Before()
    for opcode, rows in ((Opcode.LOAD, 0), (Opcode.STORE, 0), (Opcode.ROUTE, 7), (Opcode.STORE, 0), (Opcode.ROUTE, 9)):
        before = before.then(Instruction(opcode, rows=rows, num_experts=rows + 1))
    assert before == Before(count=5, first_store_end=2, route_end=5, rows=9, experts=10)
