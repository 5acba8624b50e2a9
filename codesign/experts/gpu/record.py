# SPDX-License-Identifier: Apache-2.0
"""What happened on a GPU's streams, by events, as the `Record` that `measure` reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from codesign.experts.run.arena import BlockKey
from codesign.experts.run.metrics import Kind, LayerSpan, Record, Span
from codesign.experts.run.reader import Read
from codesign.kernels.gpu.device import Device, Mark


@dataclass
class GpuRecord:
    """Marks until the end; then nanoseconds from the first one."""

    began: Mark
    counts: Record = field(default_factory=Record)
    """Hits, blocks and pairs."""
    _spans: list[tuple[Kind, str, Mark, Mark]] = field(default_factory=list)
    _reads: list[tuple[BlockKey, int, Mark, Mark]] = field(default_factory=list)
    _layers: list[tuple[int, Mark, Mark]] = field(default_factory=list)

    def span(self, kind: Kind, name: str, begin: Mark, end: Mark) -> None:
        """What the computing stream did."""
        self._spans.append((kind, name, begin, end))

    def read(self, key: BlockKey, size: int, begin: Mark, end: Mark) -> None:
        """A copy from host memory."""
        self._reads.append((key, size, begin, end))

    def layer(self, number: int, begin: Mark, end: Mark) -> None:
        """One batch through one layer."""
        self._layers.append((number, begin, end))

    def end(self, mark: Mark, device: Device) -> Record:
        """Everything on one clock. Waits for the device."""
        device.synchronize()

        def at(point: Mark) -> int:
            return point.since(self.began)

        made = self.counts
        made.began, made.ended = 0, at(mark)
        made.spans = [Span(kind, name, at(a), at(b)) for kind, name, a, b in self._spans]
        made.reads = [
            Read(key, size, submitted=at(a), started=at(a), arrived=at(b), verified=at(b))
            for key, size, a, b in self._reads
        ]
        for number, begin, end in self._layers:
            inside = [s.begin for s in made.spans if s.name.endswith("experts") and at(begin) <= s.begin < at(end)]
            reads = [r.arrived for r in made.reads if r.key.layer == number and at(begin) <= r.arrived <= at(end)]
            first = min(inside, default=at(end))
            made.layers.append(LayerSpan(number, at(begin), first, max(reads, default=0), at(end)))
        return made
