# SPDX-License-Identifier: Apache-2.0
"""Executes mixture layers from a store under a memory budget: the reader fills the arena while this thread computes.

The loop of a layer, in which reader, schedule and arithmetic meet, is kernels/src/mixture_stream.cpp.

The outputs are those of `codesign.reference.moe`, whatever the schedule, budget, transport or number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from codesign.experts.file.store import Store
from codesign.experts.run.arena import BlockKey
from codesign.experts.run.compute import Batch, Gates, Int8s, Int16s, LayerKernel, Workers
from codesign.experts.run.metrics import Record, add_log, major_faults, now
from codesign.experts.run.options import RuntimeOptions, choose
from codesign.experts.run.placement import Placement
from codesign.experts.run.reader import Arena, Reader, forget_file
from codesign.experts.run.routing import RoutingTrace
from codesign.kernels.native import native


class Runtime:
    """A store opened for computation. Use as a context manager: leaving it ends the reader's threads.

    `hot`: a recorded trace whose most used blocks are pinned, and which decides what is worth reading ahead.
    Raises InputError when the budget does not hold one expert, or more than the memory that is free.
    """

    def __init__(self, store: Store, options: RuntimeOptions, hot: RoutingTrace | None = None) -> None:
        self.store, self.options = store, options
        self.placement = Placement.make(store, store.kind, block_sizes(store), options, hot)
        self._arena = Arena(self.placement.plan.end)
        self._reader = Reader(store.path, self._arena, options.reading)
        self._stream = self._make_stream(Workers(options.threads, options.variant))
        self._none = native().Ahead()
        self._likely: dict[tuple[int, int], Any] = {}
        self.record = Record()

    def _make_stream(self, workers: Workers) -> Any:
        store, numbers, schedule = self.store, self.placement.numbers, self.options.schedule
        blocks = [store.block(*key) for key in numbers.keys]
        first = [numbers.of[BlockKey(n, 0, 0)] for n in range(len(store.layers))]
        return native().Stream(
            arena=self._arena.native,
            reader=self._reader.native,
            residency=self.placement.residency(),
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
    def reader(self) -> Reader:
        """The reader: what it really does is told by its `io` and `transport`."""
        return self._reader

    def warm(self) -> None:
        """Read what the trace used most, as far as there is room. Without it blocks are read when first needed."""
        self._finish(self._stream.warm([self.placement.numbers.of[key] for key in self.placement.warmed]))

    def start(self) -> None:
        """Begin a new record: the clock of the metrics runs from here."""
        self._stream.take_log()
        self.record = Record(began=now(), ended=now(), faults=-major_faults())

    def stop(self) -> Record:
        """End the record, which is complete from here on."""
        record = self.record
        record.ended = now()
        record.faults += major_faults()
        add_log(record, self._stream.take_log(), self.placement.numbers.keys, self.placement.sizes)
        return record

    def batch(self, x: Int8s, gates: Gates, residual: Int16s) -> Batch:
        """A batch of tokens with the widths that the options give them."""
        return Batch(x, gates, residual, choose(self.store.kind, gates, self.options))

    def layer(self, number: int, batch: Batch, following: int | None = None, foreseen: Sequence[int] = ()) -> Int16s:
        """Compute a layer. What may be read meanwhile: the `foreseen` blocks, of the layers that come next.

        Where there are none: blocks that are likely to be used in `following`, the next layer.
        Raises InputError when a block cannot be read, or is not the one that was packed.
        """
        y: Int16s = np.empty(batch.residual.shape, dtype=np.int16)
        self.run([self.plan(number, batch, y, following, foreseen)])
        return y

    def plan(
        self, number: int, batch: Batch, y: Int16s, following: int | None = None, foreseen: Sequence[int] = ()
    ) -> Any:
        """A pass for `run`, as `layer` would do it, with its output in `y`. It may read what passes before it write."""
        ahead = self._ahead_of(following, foreseen, len(batch.x))
        try:
            return self._stream.plan(number, batch.x, batch.gates, batch.widths, batch.residual, y, ahead)
        except (TypeError, ValueError):  # not what the native module takes
            batch.check(self.store.layers[number])
            arrays = (np.ascontiguousarray(a) for a in (batch.x, batch.gates, batch.widths, batch.residual))
            return self._stream.plan(number, *arrays, y, ahead)

    def run(self, passes: Sequence[Any]) -> None:
        """Compute planned passes, one after the other, without the interpreter between them.

        Raises InputError as `layer` does.
        """
        self._finish(self._stream.run(passes))

    def _finish(self, end: Any) -> None:
        """Raise InputError when a pass could not be computed."""
        if end.bad_width:
            self.store.kind.level_count(max(0, end.bad_width))  # raises
        if end.failure is not None:
            key = self.placement.numbers.keys[end.failure.tag]
            raise self._reader.failure(key, self.store.block(*key), end.failure)

    def _ahead_of(self, following: int | None, foreseen: Sequence[int], tokens: int) -> Any:
        """What is worth reading before its layer's turn."""
        if foreseen:
            return native().Ahead(foreseen, foreseen=True)
        if following is None:
            return self._none
        at = following, tokens
        if at not in self._likely:
            self._likely[at] = native().Ahead(self.placement.likely(*at), foreseen=False)
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
