# SPDX-License-Identifier: Apache-2.0
"""M3ViT-small at 480 x 640, whose feature maps do not fit the board: tiled over tokens, simulated in RTL.

`python benchmarks/m3vit_small.py [--layers N]` makes the first N layers (2 unless said; random weights) with
1,200 tokens of 384 channels and 12 heads, schedules them in blocks of token rows, simulates a frame of each task as C++
(every tensor compared) and as RTL behind the board's DRAM model, and writes benchmarks/results/m3vit_small.json. Exit
status 1 when a bit differs.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from common import store
from frames import BOARD, ROOT, SEED, built, bundle, described

from codesign.engines import Bundle, Engine, estimate_bundle, simulate
from codesign.schedule import Options, plan
from codesign.synthesis import read_recipe, synthesise

RECIPE = ROOT / "models" / "m3vit_small.toml"


def frames_of(one: Bundle) -> list[dict[str, object]]:
    """One frame of each task: as C++ with every tensor, and as RTL."""
    traced = simulate(one.path, Engine.CSIM, limit=1, trace_tensors=True)
    plain = simulate(one.path, Engine.RTLSIM, limit=1)
    wrong = {d.task for d in (*plain.mismatches, *traced.mismatches)}
    report = estimate_bundle(one)
    assert plain.cycles is not None
    found: list[dict[str, object]] = []
    for measured, predicted in zip(plain.cycles, report.tasks, strict=True):
        cycles = measured.cycles[0]
        found.append({
            "task": measured.task,
            "bit_exact": measured.task not in wrong,
            "cycles": cycles,
            "milliseconds": cycles / BOARD.clock_mhz / 1e3,
            "mac_utilisation": predicted.macs / cycles / report.peak_macs_per_cycle,
            "estimated": predicted.cycles,
            "estimate_error": predicted.cycles / cycles - 1,
            "roofline_ratio": cycles / predicted.roofline,
            "simulation_seconds": plain.seconds,
        })  # fmt: skip
    return found


def main() -> int:
    """Run, print and store; 1 when a run differs from the reference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=2)
    layers = parser.parse_args().layers
    made = synthesise(read_recipe(RECIPE).changed(layers=layers), SEED)
    design = plan(made.graph, BOARD, Options())
    one = bundle(f"m3vit-small-{layers}", made, design)
    build = built(one, again=True)
    found = frames_of(one)
    for frame in found:
        print(frame)
    content = {
        "layers": layers,
        "board": BOARD.name,
        "clock_mhz": BOARD.clock_mhz,
        "machine": described(one),
        "instructions": len(one.manifest.tasks[0].instructions),
        "build": asdict(build),
        "frames": found,
    }
    store("m3vit_small", content, "python benchmarks/m3vit_small.py")
    return 0 if all(frame["bit_exact"] for frame in found) else 1


if __name__ == "__main__":
    sys.exit(main())
