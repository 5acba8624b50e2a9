# SPDX-License-Identifier: Apache-2.0
"""Experts streamed under a memory budget: OLMoE-shaped layers, every schedule, three formats, decode and prefill.

`python benchmarks/streaming.py [--layers N] [--tokens N] [--threads N] [--repeat N]` packs models/olmoe_layers.toml
(its first layers; seeded random weights) into build/benchmarks, runs a drawn routing trace (Zipf with temporal
locality) at budgets of 25, 50 and 100 % of each format's expert bytes, prints the tables and writes
benchmarks/results/streaming.json. Every row runs in a process of its own, so that its peak resident set (VmHWM) is its
own. The rows of one mode and budget take turns in several rounds, so that all meet the same disk: the run with the
median time counts, and of gains the median over the rounds. The first batch of each format is compared with the
reference, bit for bit. Exit status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path

from common import store as store_results

from codesign.experts.file.store import Store
from codesign.experts.pack.fit import FormatChoice
from codesign.experts.pack.sources import pack_layers
from codesign.experts.run.metrics import Metrics
from codesign.experts.run.options import OVERHEAD_BYTES, TOKENS_PIN, RuntimeOptions
from codesign.experts.run.reader import Io, ReaderOptions, Transport
from codesign.experts.run.routing import RoutingTrace, drawn_trace
from codesign.experts.run.runtime import drop_page_cache
from codesign.experts.run.schedule import Order, Schedule
from codesign.experts.run.session import Replay, run_trace
from codesign.spec.moe import ExpertFormat
from codesign.synthesis.layers import LayersRecipe, read_layers

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "benchmarks" / "streaming"
RECIPE = ROOT / "models" / "olmoe_layers.toml"
FORMATS = (ExpertFormat.INT8, ExpertFormat.NESTED, ExpertFormat.TERNARY)
MODES = ("decode", "prefill")
BUDGETS = (0.25, 0.5, 1.0)
SCHEDULES = tuple(Schedule(order, hits) for order in Order for hits in (False, True))
BASELINE = Schedule(Order.ON_DEMAND)
OURS = Schedule(Order.HOTTEST_BIT_FIRST, hits_first=True)
ABLATION = (
    ("int8, on demand, LRU", ExpertFormat.INT8, BASELINE, False),
    ("+ nested levels", ExpertFormat.NESTED, BASELINE, False),
    ("+ hottest bit first, hits first", ExpertFormat.NESTED, OURS, False),
    ("+ pinned hot set", ExpertFormat.NESTED, OURS, True),
    ("the same without nesting (int8)", ExpertFormat.INT8, OURS, True),
    ("the same, ternary", ExpertFormat.TERNARY, OURS, True),
)
PREFILL = 64
RATIO_LIMIT = 1.10
SHARE = 0.20
THROUGHPUT = 1.4
MEMORY = 0.53


@dataclass(frozen=True)
class Setting:
    """What all rows share, as it was asked for."""

    layers: int
    tokens: int
    threads: int
    repeat: int
    transport: Transport
    io: Io

    @property
    def reader(self) -> ReaderOptions:
        """How to read."""
        return ReaderOptions(self.io, self.transport)

    def arguments(self) -> list[str]:
        """The command line that asks for it."""
        return [part for field in fields(self) for part in (f"--{field.name}", str(getattr(self, field.name)))]

    def traces(self) -> dict[str, RoutingTrace]:
        """The routing of each mode."""
        shape = self._shape()
        return {
            "decode": drawn_trace(*shape, (1,) * self.tokens, 1001),
            "prefill": drawn_trace(*shape, (PREFILL,) * 2, 1002),
        }

    def hot(self) -> RoutingTrace:
        """Decides the hot set: of the same popularity, other draws."""
        return drawn_trace(*self._shape(), (256,), 1000)

    def first(self) -> RoutingTrace:
        """Two tokens for the comparison with the reference."""
        return drawn_trace(*self._shape(), (2,), 1003)

    def _shape(self) -> tuple[int, int, int]:
        layer = read_layers(RECIPE).layer(0)
        return self.layers, layer.num_experts, layer.top_k

    def store(self, form: ExpertFormat) -> Store:
        """The store of a format, packed when it is not there."""
        recipe: LayersRecipe = read_layers(RECIPE).changed(self.layers)
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"olmoe-{self.layers}-{form.value}.experts"
        if not path.exists():
            print(f"packing {path.name}", flush=True)
            pack_layers(recipe, FormatChoice(form), path, 0, lambda what, done, total: None)
        return Store.open(path)


@dataclass(frozen=True)
class Case:
    """One row's question."""

    mode: str
    format: ExpertFormat
    budget: float
    schedule: Schedule
    pinned: bool

    def text(self) -> str:
        """For the command line."""
        parts = self.mode, self.format.value, self.budget, self.schedule.order.value, self.schedule.hits_first
        return json.dumps([*parts, self.pinned])

    @staticmethod
    def parse(text: str) -> Case:
        """From the command line."""
        mode, form, budget, order, hits, pinned = json.loads(text)
        return Case(mode, ExpertFormat(form), float(budget), Schedule(Order(order), bool(hits)), bool(pinned))


def case(mode: str, form: ExpertFormat, budget: float, schedule: Schedule, pin: bool = True) -> Case:
    """A case; only schedules that read ahead pin a hot set."""
    return Case(mode, form, budget, schedule, pin and schedule.ahead)


@dataclass(frozen=True)
class Row:
    """One row's answer in every round."""

    case: Case
    rounds: tuple[Metrics, ...]

    @property
    def metrics(self) -> Metrics:
        """Of the round with the median time; the peak resident set is the largest."""
        median = sorted(self.rounds, key=lambda m: m.seconds)[(len(self.rounds) - 1) // 2]
        return replace(median, peak_rss_bytes=max(m.peak_rss_bytes for m in self.rounds))

    def gain(self, base: Row) -> float:
        """Speed against another row's, the median over the rounds."""
        return statistics.median(b.seconds / m.seconds for b, m in zip(base.rounds, self.rounds, strict=True))

    @property
    def both_count(self) -> bool:
        """Whether I/O and compute are both large enough for the ratio to be judged."""
        return min(self.metrics.io_share, self.metrics.compute_share) >= SHARE


def run_case(setting: Setting, one: Case) -> Metrics:
    """Run a case in this process."""
    store, trace = setting.store(one.format), setting.traces()[one.mode]
    size = int(store.expert_bytes * one.budget)
    options = RuntimeOptions(size, one.schedule, setting.reader, setting.threads, pin=TOKENS_PIN if one.pinned else 0.0)
    drop_page_cache(store)
    return run_trace(store, Replay(trace, setting.hot()), options).metrics


def in_own_process(setting: Setting, one: Case) -> Metrics:
    """Run a case in a fresh process."""
    command = [sys.executable, __file__, *setting.arguments(), "--only", one.text()]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)  # noqa: S603
    return Metrics(**json.loads(done.stdout))


def in_turns(setting: Setting, cases: Sequence[Case]) -> Iterator[Row]:
    """Run cases, and print their lines."""
    found: dict[Case, list[Metrics]] = {one: [] for one in cases}
    for _ in range(setting.repeat):
        for one, metrics in found.items():
            metrics.append(in_own_process(setting, one))
    for one, metrics in found.items():
        row = Row(one, tuple(metrics))
        print(line(row), flush=True)
        yield row


def cases_of(mode: str, budget: float) -> list[Case]:
    """Every schedule for int8 and nested, the baseline and ours for ternary; first what the ablation compares."""
    made = [case(mode, form, budget, schedule, pin) for _, form, schedule, pin in ABLATION if pin or mode == "decode"]
    others = [
        case(mode, form, budget, schedule)
        for form, schedule in product(FORMATS, SCHEDULES)
        if form is not ExpertFormat.TERNARY or schedule in (BASELINE, OURS)
    ]
    return list(dict.fromkeys([*made, *others]))


HEAD = (
    f"{'':17}{'budget':>6} {'schedule':32} {'tokens/s':>8} {'T/ideal':>8} {'by layer':>8} {'hidden':>7} {'hits':>5}"
    f" {'MB/token':>8} {'peak MB':>8} {'I/O':>5} {'compute':>7}"
)


def line(row: Row) -> str:
    """One row of the printed table. T/ideal in brackets is not judged: one side is below 20 % of the time."""
    m, one = row.metrics, row.case
    ratio = f"{m.ideal_ratio:.3f}" if row.both_count else f"({m.ideal_ratio:.3f})"
    schedule = f"{one.schedule!s}{'' if one.pinned or not one.schedule.ahead else ', no hot set'}"
    return (
        f"{one.mode:8} {one.format.value:8}{one.budget:6.0%} {schedule:32} {m.tokens_per_second:8.1f} {ratio:>8}"
        f" {m.layered_ratio:8.3f} {m.hidden_fraction:7.0%} {m.hit_rate:5.0%} {m.read_bytes_per_token / 1e6:8.1f}"
        f" {m.peak_rss_bytes / 1e6:8.0f} {m.io_share:5.0%} {m.compute_share:7.0%}"
    )


Find = Callable[[Case], Row]


def ablation(find: Find) -> list[dict[str, object]]:
    """D2MoE's: nesting, scheduling and the hot set, one after the other, at every budget; tokens a second, decode."""
    print(f"\n{'tokens/s, decode, budget':34}" + "".join(f"{budget:>17.0%}" for budget in BUDGETS))
    made: list[dict[str, object]] = []
    for name, form, schedule, pin in ABLATION:
        speeds, gains = [], []
        for budget in BUDGETS:
            row = find(case("decode", form, budget, schedule, pin))
            speeds.append(row.metrics.tokens_per_second)
            gains.append(row.gain(find(case("decode", ExpertFormat.INT8, budget, BASELINE))))
        print(f"{name:34}" + "".join(f"{s:8.1f} ({g:5.2f} x)" for s, g in zip(speeds, gains, strict=True)))
        made.append({"what": name, "budgets": BUDGETS, "tokens_per_second": speeds, "gain": gains})
    return made


def memory(rows: list[Row]) -> list[dict[str, object]]:
    """Peak resident set and speed of the decode rows with our schedule, against int8 all-resident."""
    ours = [r for r in rows if r.case.mode == "decode" and r.case.schedule == OURS and r.case.pinned]
    whole = next(r for r in ours if r.case.format is ExpertFormat.INT8 and r.case.budget == 1.0).metrics
    print(
        f"\n{'decode':8} {'budget':>6} {'peak MB':>8} {'saved':>6} {'tokens/s':>9}   (the first is int8, all resident)"
    )
    made: list[dict[str, object]] = []
    for row in sorted(ours, key=lambda r: (FORMATS.index(r.case.format), -r.case.budget)):
        peak, speed = row.metrics.peak_rss_bytes, row.metrics.tokens_per_second
        saved = 1 - peak / whole.peak_rss_bytes
        print(f"{row.case.format.value:8} {row.case.budget:6.0%} {peak / 1e6:8.0f} {saved:6.0%} {speed:9.1f}")
        made.append(
            {
                "format": row.case.format.value,
                "budget": row.case.budget,
                "peak_rss_bytes": peak,
                "saved": saved,
                "tokens_per_second": speed,
            }
        )
    return made


def verdicts(rows: list[Row], steps: list[dict[str, object]], peaks: list[dict[str, object]]) -> dict[str, object]:
    """Whether the targets were met."""
    judged = [r for r in rows if r.case.schedule == OURS and r.case.pinned and r.both_count]
    ratios = [
        {
            "mode": r.case.mode,
            "format": r.case.format.value,
            "budget": r.case.budget,
            "ratio": r.metrics.ideal_ratio,
            "by_layer": r.metrics.layered_ratio,
            "met": r.metrics.ideal_ratio <= RATIO_LIMIT,
        }
        for r in judged
    ]
    gains = steps[3]["gain"]
    assert isinstance(gains, list)
    less = {f"{p['format']} {p['budget']:.0%}": p["saved"] for p in peaks if p["format"] != "int8"}
    return {
        "ideal_ratio_limit": RATIO_LIMIT,
        "ideal_ratios_where_both_are_over_20_percent": ratios,
        "worst_ideal_ratio": max((r.metrics.ideal_ratio for r in judged), default=None),
        "worst_ratio_by_layer": max((r.metrics.layered_ratio for r in judged), default=None),
        "ideal_ratio_met": all(r.metrics.ideal_ratio <= RATIO_LIMIT for r in judged),
        "by_layer_met": all(r.metrics.layered_ratio <= RATIO_LIMIT for r in judged),
        "throughput_limit": THROUGHPUT,
        "throughput_at_half_budget": gains[BUDGETS.index(0.5)],
        "throughput_met": gains[BUDGETS.index(0.5)] >= THROUGHPUT,
        "memory_limit": MEMORY,
        "memory_saved": less,
        "memory_met_by": [name for name, saved in less.items() if isinstance(saved, float) and saved >= MEMORY],
    }


def facts(row: Row) -> dict[str, object]:
    """One row as it is stored."""
    numbers = {
        name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(row.metrics).items()
    }
    one = row.case
    return {
        "mode": one.mode, "format": one.format.value, "budget": one.budget, "schedule": str(one.schedule),
        "pinned": one.pinned, **numbers,
    }  # fmt: skip


def check(setting: Setting) -> None:
    """Compare two tokens of each format with the reference."""
    for form in FORMATS:
        store = setting.store(form)
        options = RuntimeOptions(store.expert_bytes // 2, OURS, setting.reader, setting.threads)
        checked = run_trace(store, Replay(setting.first(), setting.hot(), check=1), options).checked
        print(f"{form.value}: {checked} layers equal the reference", flush=True)


def show(verdict: dict[str, object]) -> None:
    """Print whether the targets were met."""
    print(f"\nT / ideal at most {RATIO_LIMIT} wherever I/O and compute are both over 20 % of the time:")
    ratios = verdict["ideal_ratios_where_both_are_over_20_percent"]
    assert isinstance(ratios, list)
    for one in ratios:
        met = "met" if one["met"] else "missed"
        where = f"{one['mode']:8} {one['format']:8} {one['budget']:5.0%}"
        least = one["ratio"] / one["by_layer"]  # sum of the layers' maxima of I/O and compute over the whole's maximum
        bound = f"with these reads {least:.3f} at least; by layer {one['by_layer']:.3f}"
        print(f"  {where} {one['ratio']:.3f}  {met:6}  ({bound})")
    gain, met_by = verdict["throughput_at_half_budget"], verdict["memory_met_by"]
    assert isinstance(met_by, list)
    print(f"throughput against on-demand int8 at 50 %: {gain:.2f} x, at least {THROUGHPUT}")
    print(f"peak memory at least {MEMORY:.0%} below int8 all-resident: {', '.join(met_by) or 'none'}")


def parse() -> tuple[Setting, Case | None]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=2, help="of OLMoE's 16 (default 2: 0.8 GB of int8)")
    parser.add_argument("--tokens", type=int, default=64, help="decoded tokens (default 64)")
    parser.add_argument("--threads", type=int, default=1, help="that compute (default 1)")
    parser.add_argument("--repeat", type=int, default=5, help="rounds; medians count (default 5)")
    parser.add_argument("--transport", type=Transport, default=Transport.URING, choices=list(Transport))
    parser.add_argument("--io", type=Io, default=Io.DIRECT, choices=list(Io))
    parser.add_argument("--only", type=Case.parse, help=argparse.SUPPRESS)
    given = parser.parse_args()
    setting = Setting(given.layers, given.tokens, given.threads, given.repeat, given.transport, given.io)
    return setting, given.only


def main() -> int:
    """Run, print and store."""
    setting, only = parse()
    if only is not None:
        print(json.dumps(asdict(run_case(setting, only))))
        return 0
    check(setting)
    print(HEAD)
    rows = [row for mode, budget in product(MODES, BUDGETS) for row in in_turns(setting, cases_of(mode, budget))]
    steps = ablation(lambda one: next(row for row in rows if row.case == one))
    peaks = memory(rows)
    verdict = verdicts(rows, steps, peaks)
    show(verdict)
    content = {
        "layers": setting.layers,
        "threads": setting.threads,
        "repeat": setting.repeat,
        "reads": f"{setting.io.value}, {setting.transport.value}",
        "expert_bytes": {form.value: setting.store(form).expert_bytes for form in FORMATS},
        "routing": {mode: trace.source for mode, trace in setting.traces().items()},
        "hot_set_from": setting.hot().source,
        "memory_constant_bytes": OVERHEAD_BYTES,
        "peak_resident_set": "VmHWM of a process that ran this row only",
        "verdicts": verdict,
        "ablation": steps,
        "memory": peaks,
        "runs": [facts(row) for row in rows],
    }
    store_results("streaming", content, "python benchmarks/streaming.py")
    return 0 if verdict["ideal_ratio_met"] and verdict["throughput_met"] and verdict["memory_met_by"] else 1


if __name__ == "__main__":
    sys.exit(main())
