# SPDX-License-Identifier: Apache-2.0
"""Mixture layers on a GPU whose experts stream from page-locked host memory into a bounded part of its own.

A second stream copies blocks while the first one computes; events order them, and the processor waits for neither. The
order is that of `LayerRun`, whose blocks arrive in the order of the copies. The bits are those of
`codesign.reference.moe`. In Triton's interpreter every copy is done at once, so that nothing overlaps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from codesign.experts.gpu.batch import LayerPass, Ready
from codesign.experts.gpu.blocks import DeviceLayer, HostBlocks
from codesign.experts.gpu.record import GpuRecord
from codesign.experts.run.arena import BlockKey
from codesign.experts.run.compute import Batch
from codesign.experts.run.metrics import Kind, Record
from codesign.experts.run.options import RuntimeOptions, choose
from codesign.experts.run.placement import Placement
from codesign.experts.run.routing import RoutingTrace
from codesign.kernels.gpu.device import Mark
from codesign.kernels.gpu.ops import Ops
from codesign.kernels.native import native

if TYPE_CHECKING:
    import torch

_AHEAD = 4
"""Copies for the next layer: they cannot be taken back, and its real ones come behind them."""


class GpuRuntime:
    """A store's experts opened for computation on a GPU; of `options`, `reader`, `threads` and `variant` do not count.

    `hot`: a recorded trace whose most used blocks are pinned. Raises InputError when the budget does not hold one
    expert, or more than the device has.
    """

    def __init__(
        self, blocks: HostBlocks, options: RuntimeOptions, hot: RoutingTrace | None = None, ops: Ops | None = None
    ) -> None:
        self.blocks, self.options = blocks, options
        self._ops = ops or Ops(blocks.device)
        self.placement = Placement.make(blocks.store, blocks.kind, blocks.sizes, options, hot)
        self._numbers = self.placement.numbers
        self._residency = self.placement.residency()
        device = blocks.device
        self._arena = device.device_bytes(self.placement.plan.end)
        self._layers = [DeviceLayer.of(blocks, n) for n in range(len(blocks.store.layers))]
        self._computing = device.computing()
        self._copying = device.stream() if options.schedule.ahead else self._computing
        self._coming: deque[tuple[BlockKey, Mark]] = deque()
        self._used: dict[int, Mark] = {}
        """When what lay at a place was last read,"""
        self._copying.wait(self._computing.mark())
        self.record = GpuRecord(self._computing.mark())

    def warm(self) -> None:
        """Copy what the trace used most, as far as there is room. Without it blocks are copied when first needed."""
        for key in self.placement.warmed:
            number = self._numbers.of[key]
            if not self._residency.resident(number) and not self._residency.loading(number):
                self._submit(key, self._residency.begin_load(number))
        self._take_all()

    def start(self) -> None:
        """Begin a new record."""
        self._take_all()
        self.blocks.device.synchronize()
        self.record = GpuRecord(self._computing.mark())

    def stop(self) -> Record:
        """Wait for the device, and end the record."""
        self._take_all()
        return self.record.end(self._computing.mark(), self.blocks.device)

    def batch(self, batch: Batch) -> Batch:
        """The batch with the widths that the options give it."""
        return replace(batch, widths=choose(self.blocks.kind, batch.gates, self.options))

    def layer(
        self, number: int, batch: Batch, following: int | None = None, foreseen: Sequence[int] = ()
    ) -> torch.Tensor:
        """Compute a layer: int16 [T, D] on the device, which may not be done yet.

        What may be copied meanwhile: the `foreseen` blocks, of the layers that come next; where there are none, blocks
        that are likely to be used in `following`, the next layer.
        """
        begin = self._computing.mark()
        if foreseen or following is None:
            ahead, kept = deque(foreseen), native().Keep(named=True)
        else:
            ahead, kept = deque(self.placement.likely(following, len(batch.x))), native().Keep(following, better=True)
        work = LayerPass(self._ops, self._layers[number], self.blocks.kind, batch)
        demand = {BlockKey(number, level, e): tokens for (e, level), tokens in work.pairs.demand.items()}
        asked = [native().Demand(key.expert, key.level, self._numbers.of[key], n) for key, n in demand.items()]
        schedule = self.options.schedule
        run = native().LayerRun(self._residency, asked, schedule.order.native, schedule.hits_first)
        by_step = {(one.expert, one.level): one for one in asked}
        self._foresee(number, asked, foreseen)
        self.record.span(Kind.COMPUTE, "tokens by expert", begin, self._computing.mark())
        while not run.done:
            while (load := run.next_load()) is not None:
                self._submit(self._numbers.keys[load[0]], load[1])
            if run.all_asked_for:
                self._look_ahead(number, ahead, kept)
            ready = self._ready(run, by_step)
            if ready:
                self._compute(number, work, ready)
            else:
                self._take(number, run)
        at = self._computing.mark()
        y = work.result()
        end = self._computing.mark()
        self.record.span(Kind.COMPUTE, "sum of experts", at, end)
        self.record.layer(number, begin, end)
        self._count(work, run, demand)
        return y

    def _ready(self, run: Any, asked: Mapping[tuple[int, int], Any]) -> list[Ready]:
        """Everything that may be computed now; it is taken as computed, for the stream keeps the order."""
        found = []
        while (step := run.next_step()) is not None:
            last = run.also_ready(step)
            found.append(Ready(step.expert, step.level, last))
            for level in range(step.level, last + 1):
                run.computed(asked[step.expert, level])
        return found

    def _compute(self, number: int, work: LayerPass, ready: Sequence[Ready]) -> None:
        places = {
            one.expert: [
                self._residency.place(self._numbers.of[BlockKey(number, level, one.expert)])
                for level in range(one.last + 1)
            ]
            for one in ready
        }
        at = self._computing.mark()
        if work.compute(ready, places, self._arena):
            end = self._computing.mark()
            self.record.span(Kind.COMPUTE, f"{len(ready)} experts", at, end)
            for each in places.values():
                self._used.update(dict.fromkeys(each, end))

    def _submit(self, key: BlockKey, place: int) -> None:
        source = self.blocks.block(key)
        self._copying.wait(self._used.get(place))
        begin = self._copying.mark()
        self._copying.copy(self._arena[place : place + len(source)], source)
        end = self._copying.mark()
        self.record.read(key, len(source), begin, end)
        self._coming.append((key, end))

    def _take(self, number: int = -1, run: Any = None) -> None:
        """What is computed from now on waits for the next block to arrive."""
        key, end = self._coming.popleft()
        at = self._computing.mark()
        self._computing.wait(end)
        self.record.span(Kind.STALL, "stall", at, self._computing.mark())
        if key.layer == number:
            run.arrived(self._numbers.of[key])
        else:
            self._residency.end_load(self._numbers.of[key])

    def _take_all(self) -> None:
        while self._coming:
            self._take()

    def _foresee(self, number: int, asked: Sequence[Any], foreseen: Sequence[int]) -> None:
        """Count what was named of this layer; what is named now gives way last."""
        at = self._residency
        self.record.counts.foreseen += sum(at.named(one.block) for one in asked)
        for key, block in self._numbers.of.items():
            if key.layer == number:
                at.forget(block)
        for block in reversed(foreseen):
            at.name(block)

    def _look_ahead(self, number: int, ahead: deque[int], kept: Any) -> None:
        while ahead and sum(not_mine.layer != number for not_mine, _ in self._coming) < _AHEAD:
            block = ahead[0]
            if not self._residency.resident(block) and not self._residency.loading(block):
                place = self._residency.begin_load(block, kept)
                if place < 0:
                    return
                self._submit(self._numbers.keys[block], place)
            ahead.popleft()

    def _count(self, work: LayerPass, run: Any, demand: Mapping[BlockKey, int]) -> None:
        counts = self.record.counts
        counts.hits += run.hits
        counts.hit_bytes += run.hit_bytes
        counts.blocks += len(demand)
        counts.block_bytes += sum(self.blocks.sizes[key] for key in demand)
        for (_, levels), (_, pairs) in work.pairs.segments.items():
            counts.pairs += pairs
            counts.pair_bits += pairs * self.blocks.kind.widths[levels - 1]
