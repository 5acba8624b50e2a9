# SPDX-License-Identifier: Apache-2.0
"""What a bundle's machine takes of its board, how long finding out takes, and what the division into modules costs.

`python benchmarks/resources.py BUNDLE` synthesises with an empty cache, then again with the full one, and writes
benchmarks/results/resources-NAME.json. `--whole MODULE` also synthesises that module once part by part and once in one
piece (slow for large ones).
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import codesign
from codesign.engines import Bundle
from codesign.engines.resources import TOP, ResourceReport, Synthesis, measure
from codesign.schedule import Board, load_board

RESULTS = Path(__file__).resolve().parent / "results"
WHOLE_BITS = 10**9


def cpu_seconds() -> float:
    """Processor time of all children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def synthesise(rtl: Path, top: str, board: Board, cache: Path, limit_bits: int | None = None) -> ResourceReport:
    """One measurement in a folder of its own."""
    with tempfile.TemporaryDirectory() as work:
        how = Synthesis(Path(work), cache) if limit_bits is None else Synthesis(Path(work), cache, 1, limit_bits)
        return measure(rtl, top, board, how)


def main() -> None:
    """Measure, write the JSON, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--whole", metavar="MODULE", action="append", default=[])
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    rtl, board = bundle.path / "rtl", load_board(bundle.manifest.board)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        cold = synthesise(rtl, TOP, board, cache)
        cpu = cpu_seconds()
        warm = synthesise(rtl, TOP, board, cache)
        wholes = {}
        for top in options.whole:
            parts, whole = (synthesise(rtl, top, board, cache, bits) for bits in (None, WHOLE_BITS))
            wholes[top] = {
                "parts": {**asdict(parts.total), "levels": parts.levels},
                "whole": {**asdict(whole.total), "levels": whole.levels, "seconds": round(whole.seconds, 1)},
            }
    content = {
        "date": datetime.now(UTC).date().isoformat(),
        "codesign": codesign.__version__,
        "python": platform.python_version(),
        "bundle": bundle.manifest.name,
        "machine": asdict(bundle.size),
        "seconds_cold": round(cold.seconds, 1),
        "cpu_seconds_cold": round(cpu, 1),
        "seconds_cached": round(warm.seconds, 1),
        "report": json.loads(cold.to_json()),
        "parts_and_whole": wholes,
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"resources-{bundle.manifest.name}.json"
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1, default=lambda kind: kind.value) + "\n", encoding="utf-8")
    part.replace(file)
    print(cold.table())
    print(f"empty cache: {cold.seconds:.0f} s ({cpu:.0f} s of processor time); full cache: {warm.seconds:.1f} s")


if __name__ == "__main__":
    main()
