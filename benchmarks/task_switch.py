# SPDX-License-Identifier: Apache-2.0
"""A task switch between two frames costs no cycle: M3ViT-tiny's tasks alternating, against each repeated, on the RTL.

`python benchmarks/task_switch.py [--frames N]` runs N frames of alternating tasks in one job, on one simulated machine
without a reset, and half as many of each task alone, and writes benchmarks/results/task_switch.json.
Exit status 1 when a bit differs or a frame after a switch takes other cycles than the same frame without one.
"""

from __future__ import annotations

import argparse
import sys

from common import store
from frames import BOARD, Frame, bundle, described, frames, model

from codesign.schedule import plan


def cycles_of(done: list[Frame], task: str) -> list[int]:
    """Of every frame of the task but a job's first, which finds the memory as a reset leaves it."""
    return [f.cycles for f in done[1:] if f.task == task]


def main() -> int:
    """Run, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=4, help="alternating frames, at least 4 (default 4)")
    count = max(4, parser.parse_args().frames)
    made = model()
    one = bundle("task-switch", made, plan(made.graph, BOARD))
    tasks = one.graph.tasks
    jobs = {
        "alternating": [tasks[n % len(tasks)] for n in range(count)],
        **{f"only {task}": [task] * -(-count // 2) for task in tasks},
    }
    done = {name: frames(one, order) for name, order in jobs.items()}
    for name, each in done.items():
        print(
            f"{name:14}", "  ".join(f"{f.task} {f.cycles:,}{'' if f.exact else ' DIFFERS'}" for f in each), flush=True
        )
    verdicts = {}
    for task in tasks:
        after, without = cycles_of(done["alternating"], task), cycles_of(done[f"only {task}"], task)
        verdicts[task] = {
            "after_a_switch": after,
            "without": without,
            "mean_difference": sum(after) / len(after) - sum(without) / len(without),
            "spread_without": max(without) - min(without),
        }
        print(f"{task}: {after} after a switch, {without} without")
    exact = all(f.exact for each in done.values() for f in each)
    free = all(v["mean_difference"] <= v["spread_without"] for v in verdicts.values())
    content = {
        "model": made.graph.name,
        "machine": described(one),
        "bit_exact": exact,
        "switch_costs_no_cycle": free,
        "registers_written_for_a_switch": ["program_addr", "num_instructions"],
        "jobs": {name: [{"task": f.task, "cycles": f.cycles} for f in each] for name, each in done.items()},
        "tasks": verdicts,
    }
    store("task_switch", content, "python benchmarks/task_switch.py")
    return 0 if exact and free else 1


if __name__ == "__main__":
    sys.exit(main())
