# SPDX-License-Identifier: Apache-2.0
"""The machine in RTL judges whole Programs as `codesign.schedule.legal` does; so does C-simulation (tests/hls)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from bundles import Case, Outcome, check, run_job, share_build, write_bundle
from test_machine import SIZES

from codesign.schedule.isa import Status
from tests.legal_programs import Judged, Maker

STALLS = (0, 30)


@dataclass(frozen=True)
class Runs:
    """What every Program left behind, by stall percentage and name."""

    programs: tuple[Judged, ...]
    outcomes: dict[int, dict[str, Outcome]]


@pytest.fixture(scope="module", params=SIZES)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All of them, one after the other on one machine without a reset: legal ones also follow refused ones."""
    work, size = tmp_path_factory.mktemp(request.param), SIZES[request.param]
    programs = tuple(Maker(size, bytearray()).programs())
    cases = [Case(one.name, one.job, (), fault=one.fault) for one in programs]
    folder = work / f"legal-{request.param}"
    write_bundle(folder, size, cases)
    share_build(folder, request.param)
    check(folder, "build", "rtlsim")
    names = [one.name for one in programs]
    outcomes = {}
    for percent in STALLS:
        found = run_job(folder, work / f"stall{percent}", size, [*cases, *cases[::-1]], 3, percent)
        outcomes[percent] = dict(zip(names, found, strict=False))
        again = [one.report["status"] for one in found[len(cases) :]]
        assert again == [one.report["status"] for one in found[: len(cases)]][::-1]
    return Runs(programs, outcomes)


@pytest.mark.parametrize("stall_percent", STALLS)
def test_verdicts(runs: Runs, stall_percent: int) -> None:
    for judged in runs.programs:
        report = runs.outcomes[stall_percent][judged.name].report
        expected = (Status.OK, None) if judged.fault is None else (Status.ILLEGAL_INSTRUCTION, judged.fault)
        status = Status(report["status"])
        assert (status, None if status is Status.OK else report["fault"]) == expected, judged.name
