# SPDX-License-Identifier: Apache-2.0
"""What a run is measured by (docs/edge.md, section 6). Times are taken on the monotonic clock, in nanoseconds."""

from __future__ import annotations

import resource
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from codesign.experts.run.arena import BlockKey
from codesign.experts.run.reader import Read

_STALLED = 3


class Kind(StrEnum):
    """What the computing thread did."""

    COMPUTE = "compute"
    STALL = "stall"
    """It waited for the reader."""
    DENSE = "dense"
    """Operators outside the mixture layers."""


@dataclass(frozen=True)
class Span:
    """Something from `begin` to `end`."""

    kind: Kind
    name: str
    begin: int
    end: int


@dataclass(frozen=True)
class LayerSpan:
    """One batch through one layer: when it began, its first computation began, its last read arrived, it ended."""

    layer: int
    begin: int
    first_compute: int
    last_read: int
    end: int


@dataclass
class Record:
    """Everything that happened, in order."""

    spans: list[Span] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    layers: list[LayerSpan] = field(default_factory=list)
    hits: int = 0
    hit_bytes: int = 0
    blocks: int = 0
    block_bytes: int = 0
    tokens: int = 0
    pairs: int = 0
    pair_bits: int = 0
    foreseen: int = 0
    began: int = 0
    ended: int = 0
    faults: int = 0


def add_log(record: Record, log: Any, keys: Sequence[BlockKey], sizes: Mapping[BlockKey, int]) -> None:
    """Add what the native stream noted (`StreamLog` in kernels/include/codesign/stream.hpp) to a record, in order."""
    events, reads, passes, counts = log
    record.spans += [_span(*event) for event in events.tolist()]
    record.spans.sort(key=lambda span: span.begin)
    for block, cancelled, submitted, started, arrived, verified in reads.tolist():
        key = keys[block]
        record.reads.append(Read(key, sizes[key], submitted, started, arrived, verified, bool(cancelled)))
    record.layers += [LayerSpan(*one) for one in passes.tolist()]
    blocks, block_bytes, hits, hit_bytes, pairs, pair_bits, foreseen = counts
    record.blocks += blocks
    record.block_bytes += block_bytes
    record.hits += hits
    record.hit_bytes += hit_bytes
    record.pairs += pairs
    record.pair_bits += pair_bits
    record.foreseen += foreseen


def _span(kind: int, expert: int, first: int, last: int, begin: int, end: int) -> Span:
    names = (
        "tokens by expert",
        f"expert {expert} levels {first}-{last}",
        f"expert {expert} level {first} as it arrives",
        "stall",
        "sum of experts",
    )
    return Span(Kind.STALL if kind == _STALLED else Kind.COMPUTE, names[kind], begin, end)


@dataclass(frozen=True)
class Metrics:
    """A run in seconds and bytes. `compute` holds the dense operators too, `io` is when any read was in flight."""

    seconds: float
    io_seconds: float
    compute_seconds: float
    stall_seconds: float
    first_load_seconds: float
    """Sum over layers: from the layer's begin to its first computation."""
    last_compute_seconds: float
    """Sum over layers: from the arrival of the layer's last read to its end."""
    ideal_ratio: float
    """T / max(io, compute): 1 is perfect overlap."""
    layered_ratio: float
    """T / sum over layers of max(io, compute) in it: a layer's routing is not known before the one below is done."""
    hidden_fraction: float
    """(io + compute - T) / min(io, compute); 0 where there was nothing to hide."""
    io_share: float
    """io / T,"""
    compute_share: float
    """and compute / T."""
    hit_rate: float
    byte_hit_rate: float
    foreseen_rate: float
    """Of the blocks that were used, those that were named before their layer's turn."""
    tokens: int
    tokens_per_second: float
    read_bytes: int
    read_bytes_per_token: float
    read_gb_per_second: float
    bits_per_weight: float
    """Mean over pairs of token and expert."""
    major_faults: int
    peak_rss_bytes: int


def merged(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """What at least one interval covers, as intervals in ascending order that do not touch."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(intervals):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def union_ns(intervals: Iterable[tuple[int, int]]) -> int:
    """Nanoseconds that are covered by at least one interval."""
    return sum(end - begin for begin, end in merged(intervals))


def within_ns(spans: Sequence[tuple[int, int]], begin: int, end: int) -> int:
    """Nanoseconds from `begin` to `end` that are covered by merged intervals."""
    first = bisect_right(spans, begin, key=lambda span: span[1])
    last = bisect_left(spans, end, key=lambda span: span[0])
    return sum(min(b, end) - max(a, begin) for a, b in spans[first:last])


def layered_ns(record: Record, reads: list[tuple[int, int]]) -> int:
    """The least time with layers one after the other: of each the larger of I/O and compute, and what lies between."""
    outside = union_ns((s.begin, s.end) for s in record.spans if s.kind is Kind.DENSE)
    reading = merged(reads)
    computing = merged((s.begin, s.end) for s in record.spans if s.kind is not Kind.STALL)
    layers = ((one.begin, one.end) for one in record.layers)
    return outside + sum(max(within_ns(reading, *layer), within_ns(computing, *layer)) for layer in layers)


def measure(record: Record) -> Metrics:
    """The numbers of a run. Reads that began before it are counted from its begin on."""
    total = max(1, record.ended - record.began)
    reads = [(max(r.started, record.began), min(r.arrived, record.ended)) for r in record.reads if not r.cancelled]
    io = union_ns((a, b) for a, b in reads if b > a)
    times = {kind: union_ns((s.begin, s.end) for s in record.spans if s.kind is kind) for kind in Kind}
    compute = times[Kind.COMPUTE] + times[Kind.DENSE]
    read_bytes = sum(r.bytes for r in record.reads if not r.cancelled)
    tail = sum(max(0, one.end - max(one.last_read, one.begin)) for one in record.layers if one.last_read)
    return Metrics(
        seconds=total / 1e9,
        io_seconds=io / 1e9,
        compute_seconds=compute / 1e9,
        stall_seconds=times[Kind.STALL] / 1e9,
        first_load_seconds=sum(one.first_compute - one.begin for one in record.layers) / 1e9,
        last_compute_seconds=tail / 1e9,
        ideal_ratio=total / max(io, compute, 1),
        layered_ratio=total / max(1, layered_ns(record, reads)),
        hidden_fraction=(io + compute - total) / min(io, compute) if min(io, compute) else 0.0,
        io_share=io / total,
        compute_share=compute / total,
        hit_rate=record.hits / max(1, record.blocks),
        byte_hit_rate=record.hit_bytes / max(1, record.block_bytes),
        foreseen_rate=record.foreseen / max(1, record.blocks),
        tokens=record.tokens,
        tokens_per_second=record.tokens / total * 1e9,
        read_bytes=read_bytes,
        read_bytes_per_token=read_bytes / max(1, record.tokens),
        read_gb_per_second=read_bytes / max(1, io),
        bits_per_weight=record.pair_bits / max(1, record.pairs),
        major_faults=record.faults,
        peak_rss_bytes=peak_rss_bytes(),
    )


def now() -> int:
    """Nanoseconds of the monotonic clock, the reader's."""
    return time.monotonic_ns()


def major_faults() -> int:
    """Page faults of this process that needed a disk, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def peak_rss_bytes() -> int:
    """The largest resident set of this process so far, as Linux accounts for it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


TABLE = (
    ("time", "seconds", "{:.3f} s"),
    ("I/O", "io_seconds", "{:.3f} s"),
    ("compute", "compute_seconds", "{:.3f} s"),
    ("stall", "stall_seconds", "{:.3f} s"),
    ("first loads", "first_load_seconds", "{:.3f} s"),
    ("last computes", "last_compute_seconds", "{:.3f} s"),
    ("time / ideal", "ideal_ratio", "{:.3f}"),
    ("time / ideal by layer", "layered_ratio", "{:.3f}"),
    ("hidden", "hidden_fraction", "{:.1%}"),
    ("hit rate, blocks", "hit_rate", "{:.1%}"),
    ("hit rate, bytes", "byte_hit_rate", "{:.1%}"),
    ("foreseen, blocks", "foreseen_rate", "{:.1%}"),
    ("tokens", "tokens", "{:,}"),
    ("tokens a second", "tokens_per_second", "{:,.1f}"),
    ("bytes read a token", "read_bytes_per_token", "{:,.0f}"),
    ("read speed", "read_gb_per_second", "{:.2f} GB/s"),
    ("bits a weight", "bits_per_weight", "{:.2f}"),
    ("major faults", "major_faults", "{:,}"),
    ("peak resident set", "peak_rss_bytes", "{:,} bytes"),
)
"""Rows of the printed table: what it says, the field, how it is written."""
