# SPDX-License-Identifier: Apache-2.0
"""Executes mixture layers from a store under a memory budget: the reader fills the arena while this thread computes.

The outputs are those of `codesign.reference.moe`, whatever the schedule, budget, transport or number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.experts.arena import ArenaPlan, BlockKey, Residency, plan_arena
from codesign.experts.compute import Batch, Gates, Int8s, Int16s, LayerKernel, LayerPass, Widths, Workers
from codesign.experts.metrics import Kind, LayerSpan, Record, Span, major_faults, now
from codesign.experts.reader import Arena, Read, Reader, ReaderOptions, forget_file
from codesign.experts.routing import RoutingTrace
from codesign.experts.schedule import LayerRun, Order, Schedule, ahead_of_layer
from codesign.experts.store import Store
from codesign.reference.moe import choose_widths
from codesign.spec.moe import ExpertFormat, WidthPolicy

OVERHEAD_BYTES = 192 << 20
"""What the process may hold beside the budget and the layers' constants: interpreter, libraries, activations."""

_AHEAD = 4
"""Reads for the next layer that may wait at a time: its real ones come behind them."""


@dataclass(frozen=True)
class RuntimeOptions:
    """How to run. `budget`: bytes for blocks of experts. `pin`: keep the hot set of a trace resident."""

    budget: int
    schedule: Schedule = field(default_factory=lambda: Schedule(Order.HOTTEST_BIT_FIRST, hits_first=True))
    reader: ReaderOptions = field(default_factory=ReaderOptions)
    threads: int = 1
    variant: str | None = None
    pin: bool = True
    policy: WidthPolicy = field(default_factory=WidthPolicy)
    width: int | None = None
    """One width for all pairs of token and expert; else the policy decides (formats with one level have one)."""


def block_counts(store: Store, trace: RoutingTrace, options: RuntimeOptions) -> dict[BlockKey, float]:
    """How often a token reads each block, on average over a trace. Raises InputError when the trace does not fit."""
    check_trace(store, trace)
    counts: dict[BlockKey, float] = {}
    tokens = max(1, sum(trace.batches))
    for layer in range(len(store.layers)):
        for batch in range(len(trace.batches)):
            gates = trace.dense_gates(batch, layer)
            widths = choose(store.kind, gates, options)
            for level, width in enumerate(store.kind.widths):
                for expert, uses in enumerate((widths >= width).sum(axis=0).tolist()):
                    if uses:
                        key = BlockKey(layer, level, expert)
                        counts[key] = counts.get(key, 0.0) + uses / tokens
    return counts


def check_trace(store: Store, trace: RoutingTrace) -> None:
    """Raise InputError when a trace is not one of a model of the store's shape."""
    for layer in store.layers:
        if layer.num_experts != trace.num_experts:
            raise InputError(
                f"trace must have the {layer.num_experts} experts of the store's layer {layer.name}, not"
                f" {trace.num_experts}; record one with this model"
            )
    if trace.layers != len(store.layers):
        raise InputError(
            f"trace must have the store's {len(store.layers)} layers, not {trace.layers}; record one with this model"
        )


def choose(kind: ExpertFormat, gates: npt.NDArray[np.integer], options: RuntimeOptions) -> Widths:
    """The width of each pair of token and expert [T, E]; 0 where the gate is 0."""
    if options.width is None:
        return choose_widths(gates.astype(np.int64), kind, options.policy)
    return ((gates > 0) * options.width).astype(np.uint8)


class Runtime:
    """A store opened for computation. Use as a context manager: leaving it ends the reader's threads.

    `hot`: a recorded trace whose most used blocks are pinned, and which decides what is worth reading ahead.
    Raises InputError when the budget does not hold one expert, or more than the memory that is free.
    """

    def __init__(self, store: Store, options: RuntimeOptions, hot: RoutingTrace | None = None) -> None:
        self.store, self.options = store, options
        if options.width is not None:
            store.kind.level_count(options.width)
        sizes = block_sizes(store)
        self._counts: Mapping[BlockKey, float] = block_counts(store, hot, options) if hot else {}
        pin = options.pin and options.schedule.ahead
        self.plan: ArenaPlan = plan_arena(options.budget, sizes, self._counts, pin)
        workers = Workers(options.threads, options.variant)
        self._residency = Residency(self.plan, sizes)
        self._arena = Arena(self.plan.end)
        self._kernels = [LayerKernel(store, n, self._arena.bytes, workers) for n in range(len(store.layers))]
        self._likely: dict[tuple[int, int], tuple[BlockKey, ...]] = {}
        self._reader = Reader(store.path, self._arena, options.reader)
        self.record = Record()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the reader's threads."""
        self._reader.close()

    @property
    def pinned_bytes(self) -> int:
        """Bytes of the hot set."""
        return sum(self._residency.size(key) for key in self.plan.pinned)

    @property
    def reader(self) -> Reader:
        """The reader: what it really does is told by its `io` and `transport`."""
        return self._reader

    def warm(self) -> None:
        """Read the pinned blocks. Without it they are read when they are first needed."""
        for key in sorted(self.plan.pinned):
            if not self._residency.resident(key):
                self._submit(key, self._residency.begin_load(key))
        while self._reader.pending:
            self._collect(self._reader.wait(), None)

    def start(self) -> None:
        """Begin a new record: the clock of the metrics runs from here."""
        self.record = Record(began=now(), ended=now(), faults=-major_faults())

    def stop(self) -> Record:
        """End the record."""
        self.record.ended = now()
        self.record.faults += major_faults()
        return self.record

    def batch(self, x: Int8s, gates: Gates, residual: Int16s) -> Batch:
        """A batch of tokens with the widths that the options give them."""
        return Batch(x, gates, residual, choose(self.store.kind, gates, self.options))

    def layer(self, number: int, batch: Batch, following: int | None = None) -> Int16s:
        """Compute a layer. `following`: the layer that comes next, of which likely blocks may be read meanwhile.

        Raises InputError when a block cannot be read, or is not the one that was packed.
        """
        begin = now()
        work = LayerPass(self._kernels[number], number, batch)
        self._forget_ahead()
        run = LayerRun(self._residency, number, work.demand, self.options.schedule)
        record = self.record
        record.spans.append(Span(Kind.COMPUTE, "tokens by expert", begin, now()))
        first_compute = last_read = 0
        while not run.done:
            while (load := run.next_load()) is not None:
                self._submit(*load)
            if run.all_asked_for and following is not None:
                self._look_ahead(number, following, len(batch.x))
            last_read = max(last_read, self._collect(self._reader.poll(), run))
            step = run.next_step()
            at = now()
            if step is None:
                if not self._reader.pending:
                    raise AssertionError("the schedule waits for a block that nobody reads")
                last_read = max(last_read, self._collect(self._reader.wait(), run))
                record.spans.append(Span(Kind.STALL, "stall", at, now()))
                continue
            first_compute = first_compute or at
            expert, level = step
            last = run.also_ready(step)
            work.compute(self._residency, expert, last)
            record.spans.append(Span(Kind.COMPUTE, f"expert {expert} levels {level}-{last}", at, now()))
            for done in range(level, last + 1):
                run.computed((expert, done))
        at = now()
        y = work.result()
        end = now()
        record.spans.append(Span(Kind.COMPUTE, "sum of experts", at, end))
        record.layers.append(LayerSpan(number, begin, first_compute or end, last_read, end))
        self._count(number, work, run)
        return y

    def _count(self, number: int, work: LayerPass, run: LayerRun) -> None:
        record = self.record
        record.hits += run.hits
        record.hit_bytes += run.hit_bytes
        for expert, level in work.demand:
            record.blocks += 1
            record.block_bytes += self._residency.size(BlockKey(number, level, expert))
        record.pairs += work.pairs
        for levels, pairs in work.pairs_by_levels().items():
            record.pair_bits += pairs * self.store.kind.widths[levels - 1]

    def _submit(self, key: BlockKey, place: int | None) -> None:
        assert place is not None
        self._reader.submit(key, self.store.block(*key), place)

    def _collect(self, reads: Iterable[Read], run: LayerRun | None) -> int:
        """Tell everybody what arrived; when the last of this layer's blocks did."""
        last = 0
        for read in reads:
            self.record.reads.append(read)
            if read.cancelled:
                self._residency.drop(read.key)
            elif run is None or not run.mine(read.key):
                self._residency.end_load(read.key)
            else:
                run.arrived(read.key)
                last = read.arrived
        return last

    def _forget_ahead(self) -> None:
        """What was to be read ahead and has not begun is asked for again, if it is needed, in this layer's order."""
        if self._reader.pending:
            self._reader.cancel()
            self._collect(self._reader.poll(), None)

    def _look_ahead(self, number: int, following: int, tokens: int) -> None:
        if self._reader.pending >= _AHEAD or not self.options.schedule.ahead:
            return
        at = following, tokens
        if at not in self._likely:
            layer = self.store.layers[following]
            shape = layer.num_experts, len(self.store.kind.levels)
            share = layer.top_k / layer.num_experts
            order = self.options.schedule.order
            self._likely[at] = tuple(ahead_of_layer(order, following, shape, self._counts, tokens, share))
        for key in self._likely[at]:
            if self._reader.pending >= _AHEAD:
                return
            if not self._residency.resident(key) and not self._residency.loading(key):
                place = self._residency.begin_load(key, keep=(number, following))
                if place is None:
                    return
                self._submit(key, place)


def block_sizes(store: Store) -> dict[BlockKey, int]:
    """Bytes of every block's slot."""
    shape = [(n, layer.num_experts) for n, layer in enumerate(store.layers)]
    levels = range(len(store.kind.levels))
    return {
        BlockKey(n, level, expert): store.block(n, level, expert).padded_bytes
        for n, experts in shape
        for level in levels
        for expert in range(experts)
    }


def drop_page_cache(store: Store) -> None:
    """Make the next reads of a store reach the disk, also through the page cache."""
    forget_file(store.path)
