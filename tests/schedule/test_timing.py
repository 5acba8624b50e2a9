# SPDX-License-Identifier: Apache-2.0
"""The analytic model of a Program's cycles. That it meets the RTL is shown by benchmarks/random_machines.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codesign.schedule import ArrayShape, Design, Options, load_board, plan
from codesign.schedule.isa import Opcode
from codesign.schedule.timing import ProgramTime, Supply, estimate
from tests.graphs import GraphShape, random_graph

SHAPE = GraphShape(tokens=65, dim=64, heads=2, head_dim=32, hidden=128, expert_hidden=64, experts=4)
FAST = Supply(bytes_per_cycle=64.0, latency=60.0)


@pytest.fixture(scope="module")
def design() -> Design:
    return plan(random_graph(np.random.default_rng(3), SHAPE), load_board("zcu104"), Options(ArrayShape(32, 32)))


def run(design: Design, supply: Supply = FAST, tokens: tuple[int, ...] = (30, 60, 10, 30)) -> ProgramTime:
    program = [step.instruction for step in design.tasks[0].plain.steps]
    mixtures = sum(i.opcode is Opcode.EXPERTS for i in program)
    return estimate(program, design.size, supply, [tokens] * mixtures)


def test_the_split_adds_up(design: Design) -> None:
    timed = run(design)
    for one in timed.instructions:
        assert one.cycles == one.compute + one.memory + one.fill + one.stall
        assert min(one.compute, one.memory, one.stall) >= 0
    assert sum(one.cycles for one in timed.instructions) == timed.cycles


def test_compute_is_what_the_passes_need(design: Design) -> None:
    """Rows times tiles, of every pass."""
    timed = run(design)
    for step, one in zip(design.tasks[0].plain.steps, timed.instructions, strict=True):
        i = step.instruction
        if i.opcode in (Opcode.LINEAR, Opcode.ROUTE):
            assert one.compute == i.rows * i.n_tiles * i.k_words, step.name
        elif i.opcode is Opcode.EXPERTS:
            assert one.compute == 130 * (i.n_tiles * i.k_words + i.n_tiles2 * i.k_words2)
        elif i.opcode is Opcode.ATTENTION:
            assert one.compute == 65 * 2 * (3 + 3)  # 3 tiles of keys; 3 words of keys for one group of 32 lanes
        else:
            assert one.compute == 0


def test_a_slow_memory_bounds_the_run(design: Design) -> None:
    slow = Supply(bytes_per_cycle=4.0, latency=60.0)
    program = [step.instruction for step in design.tasks[0].plain.steps]
    blocks = sum(i.blocks * (4 if i.opcode is Opcode.EXPERTS else 1) for i in program)
    bound = blocks * design.size.block_bytes / slow.bytes_per_cycle
    assert bound < run(design, slow).cycles < 1.25 * bound
    assert run(design).cycles < 0.5 * bound


def test_an_empty_expert_costs_nothing_but_its_blocks(design: Design) -> None:
    spread = run(design, tokens=(33, 32, 33, 32))
    gathered = run(design, tokens=(65, 65, 0, 0))
    assert gathered.cycles < spread.cycles


def test_latency_is_hidden_by_reading_ahead(design: Design) -> None:
    """Ten times the latency costs little more than itself, at the start and the end."""
    far = run(design, replace(FAST, latency=600.0))
    assert far.cycles - run(design).cycles < 5 * 540
