# SPDX-License-Identifier: Apache-2.0
"""The estimate of a bundle. That it meets the RTL is shown by rtl_tests/test_random_machines.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codesign.engines import Bundle, estimate_bundle
from codesign.engines.estimate import expert_tokens, supply_of
from codesign.errors import InputError
from codesign.schedule.isa import Opcode


def test_the_memory_is_the_boards(bundle: Path) -> None:
    one = Bundle.load(bundle)
    supply, dram, clock = supply_of(one), one.manifest.dram, one.manifest.clock_mhz
    assert supply.bytes_per_cycle == dram.bytes_per_cycle(clock)
    assert supply.latency == pytest.approx(dram.latency_ns * clock / 1000)
    assert supply.opening == pytest.approx(dram.row_miss_ns * clock / 1000)
    assert supply.refresh_interval == pytest.approx(dram.refresh_interval_ns * clock / 1000)
    assert supply.stripe * one.size.ports == (bundle / one.manifest.memory.file).stat().st_size


def test_instructions_add_up_to_the_task(bundle: Path) -> None:
    one = Bundle.load(bundle)
    report = estimate_bundle(one)
    assert [task.task for task in report.tasks] == list(one.graph.tasks)
    for task in report.tasks:
        assert sum(i.cycles for i in task.instructions) == task.cycles
        assert sum(i.macs for i in task.instructions) == task.macs
        assert all(i.cycles == i.compute + i.memory + i.fill + i.stall for i in task.instructions)
        assert all(min(i.compute, i.memory, i.fill, i.stall) >= 0 for i in task.instructions)
        assert task.cycles > task.roofline == max(task.compute_bound, task.memory_bound)
    assert json.loads(report.to_json())["tasks"][0]["cycles"] == report.tasks[0].cycles


def test_tokens_are_those_of_the_image(bundle: Path) -> None:
    one = Bundle.load(bundle)
    task = one.task(next(iter(one.graph.tasks)))
    program = one.instructions(task)
    tokens = expert_tokens(one, task.name, 0, task.width)
    experts = [i for i in program if i.opcode is Opcode.EXPERTS]
    routes = [i for i in program if i.opcode is Opcode.ROUTE]
    assert len(tokens) == len(experts) > 0
    for counts, instruction, route in zip(tokens, experts, routes, strict=True):
        assert len(counts) == instruction.num_experts
        assert sum(counts) == instruction.rows * route.top_k


def test_an_image_that_is_not_there(bundle: Path) -> None:
    with pytest.raises(InputError, match="image must be one of the bundle's 3, not 3; choose a smaller number"):
        estimate_bundle(Bundle.load(bundle), image=3)
