# SPDX-License-Identifier: Apache-2.0
"""Random models on the machines of test_machine.py: bits against the reference, cycles against the estimate.

The short version of benchmarks/random_machines.py, which builds machines for its models and runs many more of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from bundles import BOARD, share_build
from test_machine import SIZES

from codesign.emit.bundle import BundleSource, write_bundle
from codesign.emit.manifest import ExpertWidth
from codesign.engines import Bundle, Engine, estimate_bundle, simulate
from codesign.schedule import Options, Width, plan
from codesign.synthesis import random_case, synthesise

MAX_ERROR = 0.05


@dataclass(frozen=True)
class Chosen:
    """A random model that fits one of the machines, and the widths of its experts to run."""

    machine: str
    number: int
    widths: tuple[Width, ...] = (Width.STORED,)


CHOSEN = (
    Chosen("simd16_pe16", 5),  # tiled over tokens
    Chosen("simd16_pe16", 11),
    Chosen("simd16_pe16", 28, tuple(Width)),
    Chosen("simd32_pe16", 0),
    Chosen("simd32_pe16", 3),
    Chosen("simd32_pe16", 10),  # two tasks
)


@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda c: f"{c.machine}-{c.number}")
def test_random_model(chosen: Chosen, tmp_path: Path) -> None:
    size = SIZES[chosen.machine]
    case = random_case(size.simd, size.pe, chosen.number)
    made = synthesise(case.recipe, case.seed, images=1)
    design = plan(made.graph, BOARD, Options(None, chosen.widths, case.block_rows, size))
    path = write_bundle(BundleSource(made.graph, design, made.test), tmp_path / "bundle")
    share_build(path, chosen.machine)
    for width in chosen.widths:
        check(path, ExpertWidth(width.name.lower()))


def check(path: Path, width: ExpertWidth) -> None:
    """Every result, and of the stored experts every tensor, is exact; the estimate is close."""
    plain = simulate(path, Engine.RTLSIM, width=width, jobs=1)
    assert not plain.mismatches
    if width is ExpertWidth.STORED:
        assert not simulate(path, Engine.RTLSIM, width=width, trace_tensors=True, jobs=1).mismatches
    assert plain.cycles is not None
    for measured, estimated in zip(plain.cycles, estimate_bundle(Bundle.load(path), 0, width).tasks, strict=True):
        assert measured.task == estimated.task
        assert estimated.cycles == pytest.approx(measured.cycles[0], rel=MAX_ERROR)
