# SPDX-License-Identifier: Apache-2.0
"""The whole machine in RTL against `codesign.reference`: hand-built Programs, through the driver, with stalls too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from bundles import VARIANT, Case, Outcome, check, run_job, share_build, stored, write_bundle
from cases import Builder

from codesign.schedule.design import MachineSize, MemoryKind
from codesign.schedule.isa import Post, Space, Status, WeightFormat, Width

SMALL = MachineSize(
    simd=16, pe=16, ports=2, act_words=2048, res_words=512, max_rows=40, key_words=3, max_experts=8, acc_bits=32,
    norm_dim_max=96, max_instructions=128, fifo_blocks=32,
)  # fmt: skip
WIDE = MachineSize(
    simd=32, pe=16, ports=4, act_words=1024, res_words=700, max_rows=37, key_words=2, max_experts=5, acc_bits=30,
    norm_dim_max=96, max_instructions=100, fifo_blocks=64, act_memory=MemoryKind.URAM, fifo_memory=MemoryKind.URAM,
)  # fmt: skip
SIZES = {"simd16_pe16": SMALL, "simd32_pe16": WIDE}
INT8, INT4, INT2 = WeightFormat.INT8, WeightFormat.INT4, WeightFormat.INT2
SLICES = (Width.SLICE4, Width.STORED, Width.SLICE2, Width.STORED, Width.SLICE4)

MAKERS: tuple[Callable[[Builder], Case], ...] = (
    lambda b: b.load_store(7),
    lambda b: b.linear("int8", Post.INT8, INT8, 9, 40, 70),
    lambda b: b.linear("int8_one_row", Post.INT8, INT8, 1, 64, 33),
    lambda b: b.linear("int16_one_tile", Post.INT16, INT8, 2, 16, 8),
    lambda b: b.linear("int16_ternary", Post.INT16, INT2, 21, 70, 40),
    lambda b: b.linear("int16_int4", Post.INT16, INT4, 37, 33, 50),
    lambda b: b.linear("gelu", Post.GELU, INT8, 13, 33, 65),
    lambda b: b.linear("add", Post.ADD, INT8, 17, 48, 40),
    lambda b: b.linear("add_ternary_one_row", Post.ADD, INT2, 1, 96, 72),
    lambda b: b.corners(),
    lambda b: b.norm(9, 48),
    lambda b: b.norm(1, 37),
    lambda b: b.norm(b.size.max_rows, 90),
    lambda b: b.attention(21, 21, 3, 16),
    lambda b: b.attention(b.size.max_rows, b.size.max_rows, 2, 20),
    lambda b: b.attention(1, 1, 1, 32),
    lambda b: b.attention(5, 37, 3, 32),
    lambda b: b.experts("experts", 20, 40, 70, 5, 2, INT8),
    lambda b: b.experts("experts_ternary", 19, 48, 33, 4, 1, INT2, ahead=4),
    lambda b: b.experts("experts_int4", 37, 33, 48, 5, 3, INT4, ahead=0),
    lambda b: b.experts("experts_slices", 23, 40, 50, 5, 2, INT8, SLICES),
    lambda b: b.block(33, 3, 16, 70, 4),
    lambda b: b.block(4, 2, 20, 40, 5),
    lambda b: b.illegal(),
    lambda b: b.illegal_after_prefetch(),
    lambda b: b.illegal_field(),
    lambda b: b.too_long(),
    lambda b: b.read_error(Space.MEMORY),
    lambda b: b.read_error(Space.INPUT),
    lambda b: b.read_error_weights(),
    lambda b: b.read_error_program(),
    lambda b: b.write_error(),
    lambda b: b.write_error_slave(),
    lambda b: b.hang(),
)


def make_cases(size: MachineSize) -> tuple[Case, ...]:
    builder = Builder(size, np.random.default_rng(7), bytearray())
    return tuple(make(builder) for make in MAKERS)


CASE_NAMES = tuple(case.name for case in make_cases(WIDE))


@dataclass(frozen=True)
class Runs:
    """One machine's cases and what each left behind, by stall percentage and case.

    `after` holds what the first case left behind when it ran right after a case that ended with an error.
    """

    cases: tuple[Case, ...]
    outcomes: dict[int, dict[int, Outcome]]
    after: dict[int, dict[int, Outcome]]


STALLS = (0, 30)


@pytest.fixture(scope="module", params=SIZES)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Every case, one after the other on one machine without a reset."""
    work, size = tmp_path_factory.mktemp(request.param), SIZES[request.param]
    cases = make_cases(size)
    folder = work / f"machine-{request.param}"
    write_bundle(folder, size, cases)
    share_build(folder, request.param)
    check(folder, "build", "rtlsim", *VARIANT)
    failing = [i for i, case in enumerate(cases) if case.status is not Status.OK]
    good = [i for i in range(len(cases)) if i not in failing]
    order = good + [i for pair in zip(failing, [0] * len(failing), strict=True) for i in pair]
    runs = Runs(cases, {}, {})
    for percent in STALLS:
        found = run_job(folder, work / f"stall{percent}", size, [cases[i] for i in order], 3, percent)
        runs.outcomes[percent] = dict(
            zip(order[: len(good)] + failing, found[: len(good)] + found[len(good) :: 2], strict=True)
        )
        runs.after[percent] = dict(zip(failing, found[len(good) + 1 :: 2], strict=True))
    return runs


def assert_stored(case: Case, outcome: Outcome) -> None:
    assert Status(outcome.report["status"]) is Status.OK
    for found, expected in zip(stored(case, outcome.raw), case.expected, strict=True):
        known = ~np.ma.getmaskarray(expected)
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found[known], np.asarray(expected)[known])
    count = len(case.job.instructions)
    assert len(outcome.report["dispatch_cycles"]) == len(outcome.report["complete_cycles"]) == count
    assert outcome.report["dispatch_cycles"] == sorted(outcome.report["dispatch_cycles"])
    assert 0 < sum(outcome.report["instruction_cycles"]) <= outcome.report["cycles"]


@pytest.mark.parametrize("stall_percent", STALLS)
@pytest.mark.parametrize("name", range(len(CASE_NAMES)), ids=CASE_NAMES)
def test_case(runs: Runs, name: int, stall_percent: int) -> None:
    case, outcome = runs.cases[name], runs.outcomes[stall_percent][name]
    assert Status(outcome.report["status"]) is case.status
    if case.status is Status.OK:
        assert_stored(case, outcome)
        return
    assert f"at instruction {outcome.report['fault']}, units not idle: " in outcome.report["message"]
    if case.fault is not None:
        assert outcome.report["fault"] == case.fault
    assert_stored(runs.cases[0], runs.after[stall_percent][name])
