# SPDX-License-Identifier: Apache-2.0
"""Executes mixture layers from a store under a memory budget: the reader fills the arena while this thread computes.

The loop of a layer, in which reader, schedule and arithmetic meet, is kernels/src/mixture_stream.cpp.

The outputs are those of `codesign.reference.moe`, whatever the schedule, budget, transport or number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from codesign.errors import InputError
from codesign.experts.file.store import Store
from codesign.experts.run.arena import ArenaPlan, BlockKey, BlockNumbers, make_residency, plan_arena
from codesign.experts.run.compute import Batch, Gates, Int8s, Int16s, LayerKernel, Workers
from codesign.experts.run.foresight import named_blocks
from codesign.experts.run.metrics import Record, add_log, major_faults, now
from codesign.experts.run.options import RuntimeOptions, choose
from codesign.experts.run.reader import Arena, Reader, forget_file
from codesign.experts.run.routing import RoutingTrace
from codesign.experts.run.schedule import ahead_of_layer
from codesign.kernels.native import native


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
        self._numbers = BlockNumbers.make(sizes)
        self._sizes = sizes
        self._arena = Arena(self.plan.end)
        self._reader = Reader(store.path, self._arena, options.reader)
        self._stream = self._make_stream(Workers(options.threads, options.variant))
        self._none = native().Ahead()
        self._likely: dict[tuple[int, int], Any] = {}
        self.record = Record()

    def _make_stream(self, workers: Workers) -> Any:
        store, numbers, schedule = self.store, self._numbers, self.options.schedule
        blocks = [store.block(*key) for key in numbers.keys]
        first = [numbers.of[BlockKey(n, 0, 0)] for n in range(len(store.layers))]
        return native().Stream(
            arena=self._arena.native,
            reader=self._reader.native,
            residency=make_residency(self.plan, self._sizes, numbers),
            blocks=[(block.offset, block.bytes, block.crc32c) for block in blocks],
            layers=[LayerKernel(store, n, base, workers).native for n, base in enumerate(first)],
            order=schedule.order.native,
            eager=schedule.hits_first,
        )

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
        return sum(self._sizes[key] for key in self.plan.pinned)

    @property
    def reader(self) -> Reader:
        """The reader: what it really does is told by its `io` and `transport`."""
        return self._reader

    def warm(self) -> None:
        """Read the pinned blocks. Without it they are read when they are first needed."""
        self._finish(self._stream.warm([self._numbers.of[key] for key in sorted(self.plan.pinned)]))

    def start(self) -> None:
        """Begin a new record: the clock of the metrics runs from here."""
        self._stream.take_log()
        self.record = Record(began=now(), ended=now(), faults=-major_faults())

    def stop(self) -> Record:
        """End the record, which is complete from here on."""
        record = self.record
        record.ended = now()
        record.faults += major_faults()
        add_log(record, self._stream.take_log(), self._numbers.keys, self._sizes)
        return record

    def batch(self, x: Int8s, gates: Gates, residual: Int16s) -> Batch:
        """A batch of tokens with the widths that the options give them."""
        return Batch(x, gates, residual, choose(self.store.kind, gates, self.options))

    def named(self, layer: int, gates: Gates) -> list[int]:
        """The blocks that tokens with these gates [T, E] read of a layer, for `layer`'s `foreseen`."""
        return named_blocks(self.store.kind, self._numbers.of, layer, gates, self.options)

    def layer(self, number: int, batch: Batch, following: int | None = None, foreseen: Sequence[int] = ()) -> Int16s:
        """Compute a layer. What may be read meanwhile: the `foreseen` blocks (`named`), of the layers that come next.

        Where there are none: blocks that are likely to be used in `following`, the next layer.
        Raises InputError when a block cannot be read, or is not the one that was packed.
        """
        y: Int16s = np.empty(batch.residual.shape, dtype=np.int16)
        ahead = self._ahead_of(following, foreseen, len(batch.x))
        try:
            end = self._stream.run(number, batch.x, batch.gates, batch.widths, batch.residual, y, ahead)
        except (TypeError, ValueError):  # not what the native module takes
            batch.check(self.store.layers[number])
            arrays = (np.ascontiguousarray(a) for a in (batch.x, batch.gates, batch.widths, batch.residual))
            end = self._stream.run(number, *arrays, y, ahead)
        self._finish(end)
        return y

    def _finish(self, end: Any) -> None:
        """Raise InputError when a pass could not be computed."""
        if end.bad_width:
            self.store.kind.level_count(max(0, end.bad_width))  # raises
        if end.failure is not None:
            key = self._numbers.keys[end.failure.tag]
            raise self._reader.failure(key, self.store.block(*key), end.failure)

    def _ahead_of(self, following: int | None, foreseen: Sequence[int], tokens: int) -> Any:
        """What is worth reading before its layer's turn."""
        if foreseen:
            return native().Ahead(foreseen, foreseen=True)
        if following is None or not self.options.schedule.ahead:
            return self._none
        at = following, tokens
        if at not in self._likely:
            layer = self.store.layers[following]
            shape = layer.num_experts, len(self.store.kind.levels)
            share = layer.top_k / layer.num_experts
            likely = ahead_of_layer(self.options.schedule.order, following, shape, self._counts, tokens, share)
            self._likely[at] = native().Ahead([self._numbers.of[key] for key in likely], foreseen=False)
        return self._likely[at]


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
