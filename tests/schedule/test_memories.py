# SPDX-License-Identifier: Apache-2.0
"""What the planner thinks a machine takes of its board, against what Yosys found."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from codesign.schedule.design import MachineSize, MemoryKind
from codesign.schedule.memories import cost, dsp48

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize(
    ("acc_bits", "norm_dim_max", "expected"),
    [(24, 192, 1694), (27, 2047, 1694), (28, 192, 1742), (40, 2047, 1742), (27, 2048, 1745), (28, 4096, 1793)],
)
def test_lanes_take_a_second_slice_for_wide_factors(acc_bits: int, norm_dim_max: int, expected: int) -> None:
    assert dsp48(64, 48, acc_bits, norm_dim_max) == expected


@pytest.mark.parametrize("name", sorted(path.name for path in RESULTS.glob("resources-*.json")))
def test_the_estimate_is_what_yosys_found(name: str) -> None:
    found = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    machine = {f.name: found["machine"][f.name] for f in fields(MachineSize)}
    kinds = {kind: MemoryKind(machine[kind]) for kind in ("act_memory", "score_memory", "fifo_memory")}
    estimate = cost(MachineSize(**{**machine, **kinds}))
    used = {resource: one["used"] for resource, one in found["report"]["resources"].items()}
    assert estimate.dsp == used["DSP48E2"]
    assert 0 <= estimate.bram36 - used["BRAM36"] < 1
    assert 0 <= estimate.uram - used["URAM"] <= 4  # Yosys puts the last words of a bank into other memory where it can
