# SPDX-License-Identifier: Apache-2.0
"""Random models on random machines: the RTL against the reference, its cycles against the estimate.

`python benchmarks/random_machines.py [--models N]` draws N models for each array shape (dims, heads, experts, top-k,
tokens, bit-widths, with and without tiling over tokens), builds one machine per array that runs them all, simulates
every Program, plain and traced (tensor by tensor), and writes benchmarks/results/random_machines.json. Exit status 1
when anything differs, or an estimate is more than 5 % off.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from common import store

from codesign.emit.bundle import BundleSource, write_bundle
from codesign.emit.manifest import ExpertWidth
from codesign.engines import Bundle, Engine, estimate_bundle, simulate
from codesign.schedule import ArrayShape, Options, Width, load_board, plan
from codesign.schedule.plan import common_machine
from codesign.synthesis import Synthesis, random_case, synthesise

BOARD = load_board("zcu104")
ARRAYS = (
    ArrayShape(16, 16),
    ArrayShape(32, 16),
    ArrayShape(32, 32),
    ArrayShape(64, 16),
    ArrayShape(64, 48),
    ArrayShape(64, 64),
)
BIG = BOARD.model_copy(
    update={"resources": BOARD.resources.model_copy(update={"dsp": 4000, "bram36": 1000, "uram": 400})}
)
"""A 64 x 64 array, and one machine for many models, exceed the board, but not what the RTL must do."""


MAX_ERROR = 0.05


@dataclass(frozen=True)
class Case:
    """One model on one machine."""

    model: str
    simd: int
    pe: int
    tokens: int
    block_rows: int | None
    experts: str
    task: str
    width: str
    bit_exact: bool
    cycles: int
    estimated: int

    @property
    def error(self) -> float:
        """Of the estimate, relative."""
        return self.estimated / self.cycles - 1


@dataclass(frozen=True)
class Drawn:
    """A random model and how it is to be scheduled."""

    made: Synthesis
    options: Options
    experts: str


def draw(array: ArrayShape, number: int) -> Drawn:
    """The `number`-th model of an array; every third one is tiled over tokens, int8 experts are sliced, too."""
    case = random_case(array.simd, array.pe, number)
    options = Options(array, tuple(Width) if case.sliced else (Width.STORED,), case.block_rows)
    return Drawn(synthesise(case.recipe, case.seed, images=1), options, case.recipe.model.expert_weights.value)


def cases(array: ArrayShape, models: int, folder: Path) -> Iterator[Case]:
    """Simulate all models of an array on one machine, built once."""
    drawn = [draw(array, number) for number in range(models)]
    machine = common_machine([plan(one.made.graph, BIG, one.options).size for one in drawn])
    built: Path | None = None
    for one in drawn:
        made, options = one.made, one.options
        design = plan(made.graph, BIG, Options(None, options.widths, options.block_rows, machine))
        path = write_bundle(BundleSource(made.graph, design, made.test), folder / made.graph.name)
        if built is not None:  # the same machine: the same executable
            (path / "build").mkdir()
            (path / "build" / "rtlsim").symlink_to(built / "build" / "rtlsim", target_is_directory=True)
        built = built or path
        for width in options.widths:
            yield from _simulate(Bundle.load(path), ExpertWidth(width.name.lower()), one)


def _simulate(bundle: Bundle, width: ExpertWidth, one: Drawn) -> Iterator[Case]:
    plain = simulate(bundle.path, Engine.RTLSIM, width=width)
    traced = simulate(bundle.path, Engine.RTLSIM, width=width, trace_tensors=True)
    assert plain.cycles is not None
    for measured, predicted in zip(plain.cycles, estimate_bundle(bundle, 0, width).tasks, strict=True):
        wrong = {d.task for d in (*plain.mismatches, *traced.mismatches)}
        size, tokens = bundle.size, bundle.graph.input.shape[0]
        yield Case(
            bundle.graph.name, size.simd, size.pe, tokens, one.options.block_rows, one.experts, measured.task,
            width.value, measured.task not in wrong, measured.cycles[0], predicted.cycles,
        )  # fmt: skip


def main() -> int:
    """Run, print and store; 1 when a run differs from the reference, or an estimate is too far off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=9, help="models for each array shape (default 9)")
    parser.add_argument("--arrays", nargs="*", default=[f"{a.simd}x{a.pe}" for a in ARRAYS])
    arguments = parser.parse_args()
    found: list[Case] = []
    with tempfile.TemporaryDirectory() as folder:
        for array in map(ArrayShape.parse, arguments.arrays):
            for case in cases(array, arguments.models, Path(folder)):
                found.append(case)
                verdict = "exact" if case.bit_exact else "DIFFERS"
                print(
                    f"{case.model:22} {case.task:7} {case.width:7} {verdict:8} {case.cycles:8,} cycles,"
                    f" estimate {case.error:+.1%}",
                    flush=True,
                )
    errors = [abs(case.error) for case in found]
    content = {
        "configurations": len(found),
        "machines": len(arguments.arrays),
        "bit_exact": sum(case.bit_exact for case in found),
        "estimate_error_max": max(errors),
        "estimate_error_mean": sum(errors) / len(errors),
        "cases": [{**asdict(case), "error": case.error} for case in found],
    }
    store("random_machines", content, "python benchmarks/random_machines.py")
    print(
        f"{content['bit_exact']} of {len(found)} configurations bit exact; estimate error at most {max(errors):.1%},"
        f" {content['estimate_error_mean']:.1%} on average"
    )
    return 0 if all(case.bit_exact for case in found) and max(errors) <= MAX_ERROR else 1


if __name__ == "__main__":
    sys.exit(main())
