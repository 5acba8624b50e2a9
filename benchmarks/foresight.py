# SPDX-License-Identifier: Apache-2.0
"""What it is worth to know a layer's routing before its turn: OLMoE's 16 layers decoded token by token.

`python benchmarks/foresight.py [--layers N] [--tokens N] [--repeat N]` packs models/olmoe_layers.toml as streaming.py
does (16 layers: 14 GB in build/benchmarks), decodes a drawn trace at half and a quarter of each format's expert bytes
with nothing known of the layers that follow, with the next one known (a pre-gated model) or predicted, and with all of
the token's; then asks the shipped model how often its next router, on this layer's tokens, is right. Prints the tables
and writes benchmarks/results/foresight.json. The ways of a row take turns, so that all meet the same disk; medians
count. Exit status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from common import store as store_results
from streaming import BUDGETS, FORMATS, OURS, RATIO_LIMIT, SHARE, Setting

from codesign.experts.file.store import Store
from codesign.experts.pack.sources import read_source
from codesign.experts.run.metrics import Metrics
from codesign.experts.run.options import RuntimeOptions
from codesign.experts.run.reader import Io, Transport
from codesign.experts.run.runtime import drop_page_cache
from codesign.experts.run.session import Replay, run_trace
from codesign.reference import OPERATORS, run_graph
from codesign.reference.functions import Ints
from codesign.spec import Graph, OpKind, RouteParams
from codesign.spec.patches import Pixels, to_patches
from codesign.train.digitscenes import Split, scenes

ROOT = Path(__file__).resolve().parent.parent
MODEL = "digits_int8.safetensors"
IMAGES = 16


@dataclass(frozen=True)
class Way:
    """What is known: `layers` ahead, with a share `recall` of their experts."""

    name: str
    layers: int
    recall: float = 1.0


def ways(layers: int) -> tuple[Way, ...]:
    """From nothing to everything, for a model of so many layers."""
    return (
        Way("nothing", 0),
        Way("next layer, 80 %", 1, 0.8),
        Way("next layer, 90 %", 1, 0.9),
        Way("next layer", 1),
        Way("all layers of the token", layers - 1),
    )


@dataclass(frozen=True)
class Row:
    """A way's median, and its speed against knowing nothing in the same rounds."""

    form: str
    budget: float
    way: Way
    metrics: Metrics
    gain: float

    @property
    def judged(self) -> bool:
        """Whether I/O and compute are both large enough."""
        return min(self.metrics.io_share, self.metrics.compute_share) >= SHARE

    def facts(self) -> dict[str, object]:
        """As it is stored."""
        way = {"known": self.way.name, "ahead": self.way.layers, "recall": self.way.recall}
        return {"format": self.form, "budget": self.budget, **way, "gain": self.gain, **asdict(self.metrics)}

    def line(self) -> str:
        """As it is printed. T/ideal in brackets is not judged: one side is below 20 % of the time."""
        m = self.metrics
        ratio = f"{m.ideal_ratio:.3f}" if self.judged else f"({m.ideal_ratio:.3f})"
        read = m.read_bytes_per_token / 1e6
        return (
            f"{self.form:8}{self.budget:6.0%} {self.way.name:24} {m.tokens_per_second:8.2f} {self.gain:6.2f}"
            f" {ratio:>8} {m.layered_ratio:8.3f} {m.foreseen_rate:8.0%} {m.hit_rate:5.0%} {read:8.1f}"
            f" {m.io_share:5.0%} {m.compute_share:7.0%} {m.read_gb_per_second:6.2f}"
        )


HEAD = (
    f"{'':8}{'budget':>6} {'known':24} {'tokens/s':>8} {'gain':>6} {'T/ideal':>8} {'by layer':>8} {'foreseen':>8}"
    f" {'hits':>5} {'MB/token':>8} {'I/O':>5} {'compute':>7} {'GB/s':>6}"
)


def decode(setting: Setting, store: Store, budget: float) -> Iterator[Row]:
    """Every way at one budget, in turns."""
    trace, hot = setting.traces()["decode"], setting.hot()
    found: dict[Way, list[Metrics]] = {way: [] for way in ways(setting.layers)}
    for _ in range(setting.repeat):
        for way, metrics in found.items():
            options = RuntimeOptions(
                int(store.expert_bytes * budget), OURS, setting.reader, setting.threads, foresight=way.layers
            )
            drop_page_cache(store)
            metrics.append(run_trace(store, Replay(trace, hot, recall=way.recall), options).metrics)
    base = next(iter(found.values()))
    for way, metrics in found.items():
        median = sorted(metrics, key=lambda m: m.seconds)[(len(metrics) - 1) // 2]
        gain = statistics.median(b.seconds / m.seconds for b, m in zip(base, metrics, strict=True))
        yield Row(store.kind.value, budget, way, median, gain)


def check(setting: Setting, store: Store) -> None:
    """Compare two tokens through every layer with the reference, with all of the routing known and half of it right."""
    options = RuntimeOptions(store.expert_bytes // 2, OURS, setting.reader, foresight=setting.layers - 1)
    checked = run_trace(store, Replay(setting.first(), setting.hot(), check=1, recall=0.5), options).checked
    print(f"{store.kind.value}: {checked} layers equal the reference", flush=True)


def recalls(graph: Graph, images: Pixels) -> dict[str, list[float]]:
    """By task, for each mixture but the first: how many of a token's experts its router names, when it is given what
    the mixture below is given."""
    found: dict[str, list[list[float]]] = {}
    constants = {c.spec.name: c.values for c in graph.constants}
    for x in to_patches(images, graph.image):
        values: dict[str, Ints] = constants | run_graph(graph, x)
        for task in graph.tasks:
            routers = [node for node in graph.nodes_of(task) if node.kind is OpKind.ROUTE]
            shares = []
            for below, router in pairwise(routers):
                inputs = [values[name] for name in (below.inputs[0], *router.inputs[1:])]
                named = OPERATORS[OpKind.ROUTE](router, inputs) > 0
                used = values[router.output.name] > 0
                shares.append(float((named & used).sum() / used.sum()))
            found.setdefault(task, []).append(shares)
    return {task: np.mean(shares, axis=0).round(4).tolist() for task, shares in found.items()}


def shipped() -> dict[str, object]:
    """How often the shipped model's next router is right; by chance top_k / num_experts would be."""
    graph = read_source(ROOT / "models" / MODEL, 0, None)
    assert isinstance(graph, Graph)
    found = recalls(graph, scenes(Split.TEST, IMAGES).images)
    chance = next(n.params.top_k / n.output.shape[1] for n in graph.nodes if isinstance(n.params, RouteParams))
    for task, shares in found.items():
        print(f"{MODEL}, {task}: the next router names {', '.join(f'{s:.1%}' for s in shares)} (chance: {chance:.0%})")
    return {"model": MODEL, "images": IMAGES, "chance": chance, "recall": found}


def parse() -> Setting:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=16, help="of OLMoE's 16 (default), 2 at least")
    parser.add_argument("--tokens", type=int, default=24, help="decoded tokens (default 24)")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians count (default 3)")
    given = parser.parse_args()
    if given.layers < 2:
        parser.error(f"--layers must be 2 at least, not {given.layers}")
    return Setting(given.layers, given.tokens, 1, given.repeat, Transport.URING, Io.DIRECT)


def main() -> int:
    """Run, print and store."""
    setting = parse()
    stores = [setting.store(form) for form in FORMATS]
    for store in stores:
        check(setting, store)
    print(HEAD)
    rows = []
    for store in stores:
        for budget in BUDGETS[1::-1]:
            for row in decode(setting, store, budget):
                print(row.line(), flush=True)
                rows.append(row)
    known = [row for row in rows if row.judged and row.way.layers and row.way.recall == 1.0]
    worst = max((row.metrics.ideal_ratio for row in known), default=None)
    if worst is not None:
        print(f"T / ideal with a routing that is known: {worst:.3f} at most, {RATIO_LIMIT} wanted")
    content = {
        "layers": setting.layers, "tokens": setting.tokens, "repeat": setting.repeat, "threads": setting.threads,
        "reads": f"{setting.io.value}, {setting.transport.value}", "routing": setting.traces()["decode"].source,
        "ideal_ratio_limit": RATIO_LIMIT, "worst_ideal_ratio_when_known": worst, "shipped_model": shipped(),
        "runs": [row.facts() for row in rows],
    }  # fmt: skip
    store_results("foresight", content, "python benchmarks/foresight.py")
    return 0 if worst is None or worst <= RATIO_LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
