# SPDX-License-Identifier: Apache-2.0
"""Words of K and V that attention reads per cycle, for query parallelism 1, 2, 4, 8 and a whole block, on the RTL.

`python benchmarks/attention_words.py [--layers N]` runs the first N layers of M3ViT-tiny with attention cut into
instructions of so many queries, each of which loads K and V once, and writes benchmarks/results/attention_words.json.
Exit status 1 when a bit differs or the words per cycle grow with the parallelism.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass

from common import store
from frames import ROOMY, bundle, described, frames, long_machine, model

from codesign.schedule import Options, plan
from codesign.schedule.switches import Switches, switched

PARALLELISM = (1, 2, 4, 8, None)
TASK = "semseg"


@dataclass(frozen=True)
class Words:
    """Attention at one query parallelism."""

    queries_per_load: int
    bit_exact: bool
    kv_words: int
    attention_cycles: int
    """From the end of the instruction before each attention to the end of its own."""
    words_per_cycle: float
    words_per_query: float
    cycles_per_query: float


def main() -> int:
    """Run, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=2, help="layers of the model to run (default 2)")
    layers = parser.parse_args().layers
    made = model(layers=layers)
    rows = made.graph.spec_of(made.graph.output_of(TASK).tensor).shape[0]
    planned = plan(made.graph, ROOMY, Options(machine=long_machine()))
    found = []
    for queries in PARALLELISM:
        one = bundle(f"attention-{queries or 'all'}", made, switched(planned, Switches(queries_per_load=queries)))
        (frame,) = frames(one, [TASK])
        words, cycles, served = frame.profile.kv_words, frame.cycles_of("ATTENTION"), rows * layers
        found.append(
            Words(queries or rows, frame.exact, words, cycles, words / cycles, words / served, cycles / served)
        )
        w = found[-1]
        print(
            f"{w.queries_per_load:4} queries a load: {'exact' if w.bit_exact else 'DIFFERS'}, {w.kv_words:,} words of"
            f" K and V in {w.attention_cycles:,} cycles: {w.words_per_cycle:.3f} a cycle,"
            f" {w.words_per_query:.1f} words and {w.cycles_per_query:.1f} cycles a query",
            flush=True,
        )
    exact = all(w.bit_exact for w in found)
    grows = any(b.words_per_cycle > a.words_per_cycle * 1.01 for a in found[:1] for b in found[1:])
    content = {
        "model": made.graph.name,
        "layers": layers,
        "task": TASK,
        "machine": described(one),
        "bit_exact": exact,
        "grows": grows,
        "parallelism": [asdict(w) for w in found],
    }
    store("attention_words", content, "python benchmarks/attention_words.py")
    return 0 if exact and not grows else 1


if __name__ == "__main__":
    sys.exit(main())
