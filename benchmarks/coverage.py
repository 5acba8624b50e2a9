# SPDX-License-Identifier: Apache-2.0
"""Which lines, branches and toggles of the SystemVerilog the tests reach, module by module.

`python benchmarks/coverage.py` runs the unit benches and the hand-built Programs of rtl_tests on machines that count,
then random models on one more such machine (with stalls, compared with the reference), merges what Verilator leaves,
prints the table and writes benchmarks/results/coverage.json. `--missed` also prints every line and branch that was not
reached. Exit status 1 when a test fails, when a result differs, or when less than 90 % of a module's lines and branches
were reached.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import store
from frames import sources
from random_machines import BIG, draw

from codesign.emit.bundle import BundleSource, write_bundle
from codesign.engines import Bundle, toolchain
from codesign.engines.build import check_command, last_line
from codesign.engines.toolchain import Command, Tool
from codesign.schedule import ArrayShape, Options, plan
from codesign.schedule.plan import common_machine

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "rtl_tests"
sys.path.append(str(TESTS / "machine"))
import cover  # noqa: E402 - a bundle has it in sim/, where it needs nothing of codesign

THRESHOLD = 90.0
"""Percent of a module's lines and branches; toggles have none, as most of those missed are high bits of addresses."""
EXPLAINED = {"gelu_lane": "its function of constants runs at elaboration only"}
"""Modules that may stay below the threshold."""
PROGRAMS_ON = "simd16_pe16"
"""The machine of the hand-built Programs; their other one is as wide as that of the models."""
ARRAY, MODELS = ArrayShape(32, 16), 3
STALL_PERCENT = 20
SECONDS = 7200.0


def run_tests(files: list[Path], chosen: str, folder: Path, jobs: int) -> bool:
    """Runs tests (pytest's -k) of some modules, which leave their coverage in `folder`; whether all passed."""
    parallel = ("-n", str(jobs)) if jobs > 1 else ()
    args = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *parallel, *map(str, files))
    log, env = folder / f"{files[0].stem}.log", (("CODESIGN_COVERAGE", str(folder)),)
    done = toolchain.run(Command(Tool.PYTHON, args, log, ROOT, SECONDS, env))
    print(f"{len(files)} test modules: {done.tail[-1] if done.tail else 'no output'}", flush=True)
    if done.status:
        print("\n".join(done.tail), file=sys.stderr)
    return done.status == 0


@dataclass(frozen=True)
class Model:
    """A random model through all its Programs on one machine."""

    name: str
    programs: int
    exact: bool
    coverage: Path
    sources: str


def random_models(array: ArrayShape, models: int, folder: Path) -> Iterator[Model]:
    """Models of random_machines.py on one machine that counts, built once."""
    drawn = [draw(array, number) for number in range(models)]
    machine = common_machine([plan(one.made.graph, BIG, one.options).size for one in drawn])
    built = folder / "machine"
    built.mkdir()
    for one in drawn:
        made, options = one.made, one.options
        design = plan(made.graph, BIG, Options(None, options.widths, options.block_rows, machine))
        bundle = Bundle.load(write_bundle(BundleSource(made.graph, design, made.test), folder / made.graph.name))
        (bundle.path / "build").mkdir()
        (bundle.path / "build" / "rtlsim-coverage").symlink_to(built, target_is_directory=True)
        yield _simulate(bundle, folder / f"{made.graph.name}-results")


def _simulate(bundle: Bundle, results: Path) -> Model:
    """The first image through every task at every width, in one job."""
    tasks = bundle.manifest.tasks
    results.mkdir()
    job = {
        "bundle": str(bundle.path),
        "images": str(bundle.path / "data" / "images.npy"),
        "runs": [{"image": 0, "task": t.name, "width": t.width.value, "traced": False} for t in tasks],
        "results": str(results),
        "seed": 1,
        "stall_percent": STALL_PERCENT,
        "coverage": True,
    }
    path = results / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    completed = toolchain.run(check_command(bundle, ("job", str(path)), results / "check.log", SECONDS))
    last_line(completed, f"simulating {bundle.graph.name}")
    exact = True
    for index, task in enumerate(tasks):
        golden = bundle.golden(task.name, task.width)[0]
        found = np.frombuffer((results / f"{index}.bin").read_bytes(), np.uint8)[: golden.size]
        exact = exact and np.array_equal(found, golden)
    print(f"{bundle.graph.name}: {len(tasks)} Programs, {'exact' if exact else 'DIFFERS'}", flush=True)
    return Model(bundle.graph.name, len(tasks), exact, results / "coverage.dat", sources(bundle))


def share(one: cover.Share) -> dict[str, float]:
    """For the results file."""
    return {"points": one.points, "hit": one.hit, "percent": round(one.percent, 2)}


def described(row: cover.Covered) -> dict[str, object]:
    """For the results file."""
    return {"lines": share(row.lines), "branches": share(row.branches), "toggles": share(row.toggles)}


def report(counts: Counter[cover.Point], show_missed: bool) -> dict[str, object]:
    """Prints the table; what the results file says of it."""
    rows = cover.summary(counts)
    below = [r.module for r in rows if (r.lines + r.branches).percent < THRESHOLD and r.module not in EXPLAINED]
    missed = {r.module: [str(p) for p in cover.missed(counts, r.module) if p.kind != "toggle"] for r in rows}
    print(cover.table(counts))
    for module, points in missed.items():
        for point in points if show_missed else ():
            print(f"missed: {module}.sv {point}")
    print(f"less than {THRESHOLD:.0f} % of lines and branches: {', '.join(below) or 'no module'}")
    print("\n".join(f"not counted: {module}, {reason}" for module, reason in EXPLAINED.items()))
    return {
        "threshold_percent": THRESHOLD,
        "below": below,
        "explained": EXPLAINED,
        "total": described(cover.total(rows)),
        "modules": {r.module: described(r) for r in rows},
        "missed": {module: points for module, points in missed.items() if points},
    }


def main() -> int:
    """Run, print and store; 1 when something fails, differs or stays below the threshold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="tests side by side (default 2)")
    parser.add_argument("--missed", action="store_true", help="print the lines and branches that were not reached")
    arguments = parser.parse_args()
    units = [path for path in sorted(TESTS.glob("test_*.py")) if "from unit import" in path.read_text()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        passed = run_tests(units, "not yosys", folder, arguments.jobs)
        passed = run_tests([TESTS / "test_machine.py"], PROGRAMS_ON, folder, 1) and passed
        models = list(random_models(ARRAY, MODELS, folder))
        counts = cover.read([*sorted(folder.glob("*.dat")), *(m.coverage for m in models)])
    content = {
        "sources": models[0].sources,
        "unit_tests": [path.stem for path in units],
        "programs_on": PROGRAMS_ON,
        "tests_passed": passed,
        "models": [{"name": m.name, "programs": m.programs, "bit_exact": m.exact} for m in models],
        **report(counts, arguments.missed),
    }
    store("coverage", content, "python benchmarks/coverage.py")
    return 0 if passed and all(m.exact for m in models) and not content["below"] else 1


if __name__ == "__main__":
    sys.exit(main())
