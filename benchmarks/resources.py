# SPDX-License-Identifier: Apache-2.0
"""What a bundle's machine takes of its board, how long finding out takes, and what the division into modules costs.

`python benchmarks/resources.py BUNDLE` synthesises with an empty cache, then again with the full one, and writes
benchmarks/results/resources-NAME.json. `--whole MODULE` also synthesises that module once part by part and once in one
piece (slow for large ones). Exit status 1 when the machine does not fit its board, or a path has more LUT levels than
the limit.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from common import store
from frames import described

from codesign.engines import Bundle
from codesign.engines.resources import LEVELS, TOP, ResourceReport, Synthesis, measure
from codesign.engines.resources_units import LIMIT_BITS
from codesign.schedule import Board, load_board
from codesign.schedule.memories import cost

WHOLE_BITS = 10**9


def cpu_seconds() -> float:
    """Processor time of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def synthesise(rtl: Path, top: str, board: Board, cache: Path, jobs: int, limit: int = LIMIT_BITS) -> ResourceReport:
    """One measurement in a folder of its own."""
    with tempfile.TemporaryDirectory() as work:
        return measure(rtl, top, board, Synthesis(Path(work), cache, jobs, limit))


def main() -> int:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default 2)")
    parser.add_argument("--whole", metavar="MODULE", action="append", default=[])
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    rtl, board = bundle.path / "rtl", load_board(bundle.manifest.board)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        cold = synthesise(rtl, TOP, board, cache, options.jobs)
        cpu = cpu_seconds()
        warm = synthesise(rtl, TOP, board, cache, options.jobs)
        wholes = {}
        for top in options.whole:
            parts, whole = (synthesise(rtl, top, board, cache, 1, bits) for bits in (LIMIT_BITS, WHOLE_BITS))
            wholes[top] = {
                "parts": {**asdict(parts.total), "levels": parts.levels},
                "whole": {**asdict(whole.total), "levels": whole.levels, "seconds": round(whole.seconds, 1)},
            }
    content = {
        "bundle": bundle.manifest.name,
        "machine": described(bundle),
        "fits": cold.fits,
        "levels_reached": cold.levels <= LEVELS,
        "planner_estimate": asdict(cost(bundle.size)),
        "jobs": options.jobs,
        "seconds_cold": round(cold.seconds, 1),
        "cpu_seconds_cold": round(cpu, 1),
        "seconds_cached": round(warm.seconds, 1),
        "report": json.loads(cold.to_json()),
        "parts_and_whole": wholes,
    }
    store(f"resources-{bundle.manifest.name}", content, f"python benchmarks/resources.py BUNDLE --jobs {options.jobs}")
    print(cold.table())
    print(f"empty cache: {cold.seconds:.0f} s ({cpu:.0f} s of processor time); full cache: {warm.seconds:.1f} s")
    return 0 if cold.fits and cold.levels <= LEVELS else 1


if __name__ == "__main__":
    sys.exit(main())
