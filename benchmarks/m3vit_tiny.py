# SPDX-License-Identifier: Apache-2.0
"""M3ViT-tiny at full scale: whole frames of the RTL, for every expert format, against the roofline and the estimate.

`python benchmarks/m3vit_tiny.py` makes the models (ternary top-2 and top-4, int8 with slices, int4), puts them on one
machine of the ZCU104 that is built once, simulates a whole frame of both tasks (plain, and with every tensor compared),
and writes benchmarks/results/m3vit_tiny.json. Exit status 1 when a bit differs or a target is missed. `--estimates`:
only estimates again what was simulated last.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from common import RESULTS, store
from frames import BOARD, FOLDER, Built, built, bundle, described, model, sources

from codesign.emit.manifest import ExpertWidth
from codesign.engines import Bundle, Engine, estimate_bundle, load_profiles, simulate
from codesign.schedule import Design, Options, Width, plan
from codesign.schedule.plan import common_machine
from codesign.synthesis import ExpertWeights

MAX_CYCLES, MIN_UTILISATION, MAX_INT8_ROOFLINE = 330_000, 0.80, 1.15


@dataclass(frozen=True)
class Variant:
    """A model of the benchmark."""

    experts: ExpertWeights
    top_k: int
    widths: tuple[Width, ...] = (Width.STORED,)

    @property
    def name(self) -> str:
        """Of its bundle."""
        return f"m3vit-tiny-{self.experts.value}-top{self.top_k}"


VARIANTS = (
    Variant(ExpertWeights.TERNARY, 2),
    Variant(ExpertWeights.TERNARY, 4),
    Variant(ExpertWeights.INT8, 2, (Width.STORED, Width.SLICE4, Width.SLICE2)),
    Variant(ExpertWeights.INT4, 2),
)


@dataclass(frozen=True)
class FullFrame:
    """One frame of one task. Bounds in cycles; `simulation_seconds` for all tasks of the bundle together."""

    model: str
    experts: str
    top_k: int
    width: str
    task: str
    bit_exact: bool
    """The result of the plain Program and every tensor of the traced one."""
    cycles: int
    milliseconds: float
    macs: int
    mac_utilisation: float
    compute_bound: float
    memory_bound: float
    roofline_ratio: float
    estimated: int
    estimate_error: float
    bytes_read: int
    bytes_needed: int
    """Without those of experts that have no token."""
    simulation_seconds: float
    traced_simulation_seconds: float


def designs(variants: tuple[Variant, ...]) -> list[Design]:
    """The variants on the smallest machine that runs them all, which fits the board."""
    sizes = [plan(model(v.experts, v.top_k).graph, BOARD, Options(widths=v.widths)).size for v in variants]
    machine = common_machine(sizes)
    return [plan(model(v.experts, v.top_k).graph, BOARD, Options(None, v.widths, None, machine)) for v in variants]


def measure(variant: Variant, one: Bundle, width: ExpertWidth) -> Iterator[FullFrame]:
    """Both tasks, plain and traced, on one image."""
    traced = simulate(one.path, Engine.RTLSIM, limit=1, width=width, trace_tensors=True)
    plain = simulate(one.path, Engine.RTLSIM, limit=1, width=width)
    read = {profile.task: profile.read_bytes for profile in load_profiles(one)}
    report = estimate_bundle(one, 0, width)
    assert plain.cycles is not None
    wrong = {d.task for d in (*plain.mismatches, *traced.mismatches)}
    rate = BOARD.memory.bytes_per_cycle(BOARD.clock_mhz)
    for measured, predicted in zip(plain.cycles, report.tasks, strict=True):
        cycles = measured.cycles[0]
        yield FullFrame(
            variant.name, variant.experts.value, variant.top_k, width.value, measured.task, measured.task not in wrong,
            cycles, cycles / BOARD.clock_mhz / 1e3, predicted.macs,
            predicted.macs / cycles / report.peak_macs_per_cycle, predicted.compute_bound, predicted.memory_bound,
            cycles / predicted.roofline, predicted.cycles, predicted.cycles / cycles - 1, int(read[measured.task]),
            round(predicted.memory_bound * rate), plain.seconds, traced.seconds,
        )  # fmt: skip


def estimated_again(frames: Sequence[dict[str, Any]]) -> list[FullFrame]:
    """Simulated frames with today's estimate."""
    done = []
    for frame in frames:
        report = estimate_bundle(Bundle.load(FOLDER / frame["model"]), 0, ExpertWidth(frame["width"]))
        cycles = next(t.cycles for t in report.tasks if t.task == frame["task"])
        done.append(FullFrame(**{**frame, "estimated": cycles, "estimate_error": cycles / frame["cycles"] - 1}))
    return done


def show(f: FullFrame) -> None:
    """One line."""
    print(
        f"{f.model:26} {f.width:7} {f.task:7} {'exact' if f.bit_exact else 'DIFFERS':8} {f.cycles:8,} cycles"
        f" {f.milliseconds:.3f} ms  {f.mac_utilisation:.1%} of the array  {f.roofline_ratio:.3f} x roofline"
        f"  estimate {f.estimate_error:+.1%}  {f.bytes_read / 1e6:.1f} MB  {f.simulation_seconds:.0f} s",
        flush=True,
    )


def targets(found: list[FullFrame]) -> dict[str, bool]:
    """Whether the issue's targets are met, by name."""
    ternary = [f for f in found if f.experts == "ternary" and f.top_k == 2]
    int8 = [f for f in found if f.experts == "int8" and f.width == "stored"]
    return {
        "bit exact, every tensor": all(f.bit_exact for f in found),
        f"ternary top-2: at most {MAX_CYCLES} cycles": all(f.cycles <= MAX_CYCLES for f in ternary),
        f"ternary top-2: at least {MIN_UTILISATION:.0%} of the array": all(
            f.mac_utilisation >= MIN_UTILISATION for f in ternary
        ),
        f"int8 top-2: at most {MAX_INT8_ROOFLINE} x roofline": all(f.roofline_ratio <= MAX_INT8_ROOFLINE for f in int8),
    }


def simulated() -> tuple[dict[str, Any], list[FullFrame]]:
    """Builds and simulates everything: facts, and frames."""
    found: list[FullFrame] = []
    made: Built | None = None
    planned = designs(VARIANTS)
    bundles = [bundle(v.name, model(v.experts, v.top_k), d) for v, d in zip(VARIANTS, planned, strict=True)]
    assert len({sources(one) for one in bundles}) == 1
    for variant, one in zip(VARIANTS, bundles, strict=True):
        made = made or built(one, again=True)
        for width in variant.widths:
            found += measure(variant, one, ExpertWidth(width.name.lower()))
            for frame in found[-len(one.graph.tasks) :]:
                show(frame)
    assert made is not None
    facts = {
        "board": BOARD.name,
        "clock_mhz": BOARD.clock_mhz,
        "machine": described(bundles[0]),
        "bytes_per_cycle": BOARD.memory.bytes_per_cycle(BOARD.clock_mhz),
        "build": asdict(made),
        "load_average": round(os.getloadavg()[1], 1),
    }
    return facts, found


def main() -> int:
    """Run, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--estimates", action="store_true", help="only estimate again what was simulated last")
    if parser.parse_args().estimates:
        facts = json.loads((RESULTS / "m3vit_tiny.json").read_text(encoding="utf-8"))
        found = estimated_again(facts["frames"])
        for frame in found:
            show(frame)
    else:
        facts, found = simulated()
    verdicts = targets(found)
    errors = [abs(f.estimate_error) for f in found]
    content = {
        **facts,
        "targets": verdicts,
        "estimate_error_max": max(errors),
        "frames": [asdict(f) for f in found],
    }
    store("m3vit_tiny", content, "python benchmarks/m3vit_tiny.py")
    for name, met in verdicts.items():
        print(f"{'met' if met else 'MISSED':7} {name}")
    return 0 if all(verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
