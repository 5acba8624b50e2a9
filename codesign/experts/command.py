# SPDX-License-Identifier: Apache-2.0
"""`codesign experts run`: opens what the user names, runs it, and writes what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from codesign.engines.bundle import Bundle
from codesign.engines.images import load_images
from codesign.errors import InputError
from codesign.experts.file.store import Store
from codesign.experts.file.whole import check_target
from codesign.experts.gpu.blocks import HostBlocks
from codesign.experts.gpu.session import GpuRunResult, run_gpu_trace
from codesign.experts.run.compute import Where
from codesign.experts.run.graph import run_graph
from codesign.experts.run.options import RuntimeOptions
from codesign.experts.run.routing import RoutingTrace
from codesign.experts.run.session import Replay, RunResult, drawn_pair, parse_budget, run_trace
from codesign.experts.run.trace import write_perfetto
from codesign.kernels.gpu.device import open_device

Watch = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Source:
    """What runs: a bundle's graph on images, or LLM-shaped layers along a trace (a file's, or a drawn one)."""

    store: Path
    bundle: Path | None = None
    images: Path | None = None
    limit: int | None = None
    tasks: tuple[str, ...] = ()
    trace: Path | None = None
    prefill: int = 64
    tokens: int = 16
    seed: int = 1
    hot: Path | None = None
    recall: float | None = None
    """Along a trace: the share of experts that are foreseen; of all when left out."""


def run_store(
    source: Source,
    budget: str,
    options: Callable[[int], RuntimeOptions],
    check: int = 0,
    record: Path | None = None,
    perfetto: Path | None = None,
    watch: Watch = lambda what, done, total: None,
    where: Where = Where.CPU,
) -> RunResult | GpuRunResult:
    """Run a store under a budget (`parse_budget`); write the routing trace and the timeline where they are asked for.

    On a GPU the budget is of its memory, the whole store lies in the host's, and bundles do not run.

    Raises InputError for bad input, CheckError when a bit differs from the reference.
    """
    if source.bundle is None and (source.images or source.limit or source.tasks):
        raise InputError("images, limit and task must come with a bundle, and there is none; add --bundle")
    if source.bundle is not None and source.trace is not None:
        raise InputError("trace must be left out with a bundle, whose own router routes; drop --trace or --bundle")
    if source.bundle is not None and source.recall is not None:
        raise InputError("recall must be left out with a bundle, whose own routers foresee; drop --recall or --bundle")
    if source.bundle is not None and where is Where.CUDA:
        raise InputError("a bundle must run on the processor here, not on cuda; simulate it with --engine cuda")
    for path, what in ((record, "trace"), (perfetto, "timeline")):
        if path is not None:
            check_target(path, what)  # not after a long run
    store = Store.open(source.store)
    chosen = options(parse_budget(budget, store.expert_bytes))
    hot = None if source.hot is None else RoutingTrace.load(source.hot)

    def progress(done: int, total: int) -> None:
        watch("running experts", done, total)

    if source.bundle is not None:
        bundle = Bundle.load(source.bundle)
        graph = bundle.graph
        images = bundle.images if source.images is None else load_images(source.images, graph.image)
        made = run_graph(graph, store, images[: source.limit], chosen, hot, source.tasks, check, progress)
        result: RunResult | GpuRunResult = made.result
        trace = made.trace
    else:
        trace, drawn = _routing(source, store)
        if source.recall is not None and not chosen.foresight:
            raise InputError("recall must come with foresight, and there is none; add --foresight")
        replay = Replay(trace, hot or drawn, check, source.seed, 1.0 if source.recall is None else source.recall)
        if where is Where.CUDA:
            result = run_gpu_trace(HostBlocks(store, open_device()), replay, chosen, progress)
        else:
            result = run_trace(store, replay, chosen, progress)
    if record is not None:
        trace.save(record)
    if perfetto is not None:
        write_perfetto(result.record, perfetto)
    return result


def _routing(source: Source, store: Store) -> tuple[RoutingTrace, RoutingTrace | None]:
    """The trace to run along; a drawn one comes with another to choose the hot set from."""
    if source.trace is not None:
        return RoutingTrace.load(source.trace), None
    return drawn_pair(store, source.prefill, source.tokens, source.seed)
