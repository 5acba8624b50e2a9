# SPDX-License-Identifier: Apache-2.0
"""A run as a timeline that opens in Perfetto (ui.perfetto.dev) and in chrome://tracing: Trace Event Format, JSON."""

from __future__ import annotations

import json
from pathlib import Path

from codesign.experts.file.whole import write_whole
from codesign.experts.run.metrics import Record
from codesign.experts.run.reader import Read

Event = dict[str, object]

_TRACKS = ((1, "compute thread"), (2, "layers"))
_FIRST_READ = 10


def perfetto(record: Record) -> str:
    """The JSON text: the computing thread, layers, reads in flight (a track for each that overlap) and bytes read."""
    events: list[Event] = [_name(0, "process_name", "codesign experts run")]
    events += [_name(number, "thread_name", name) for number, name in _TRACKS]
    for span in record.spans:
        events.append(
            _span(1, span.name if span.kind.value != "stall" else "stall", span.begin, span.end, record.began)
        )
    for layer in record.layers:
        events.append(_span(2, f"layer {layer.layer}", layer.begin, layer.end, record.began))
    lanes: list[int] = []
    total = 0
    for read in sorted(record.reads, key=lambda r: r.started):
        if read.cancelled:
            continue
        lane = next((i for i, free in enumerate(lanes) if free <= read.started), len(lanes))
        if lane == len(lanes):
            lanes.append(0)
            events.append(_name(_FIRST_READ + lane, "thread_name", f"read {lane + 1}"))
        lanes[lane] = read.arrived
        event = _span(_FIRST_READ + lane, _read_name(read), read.started, read.arrived, record.began)
        waited = (read.started - read.submitted) / 1e3
        event["args"] = {"bytes": read.bytes, "queued_us": waited, "checked_us": (read.verified - read.arrived) / 1e3}
        events.append(event)
        total += read.bytes
        at = (read.arrived - record.began) / 1e3
        events.append({"ph": "C", "pid": 1, "name": "bytes read", "ts": at, "args": {"bytes": total}})
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": events})


def write_perfetto(record: Record, path: Path) -> None:
    """Write the timeline, all of it or nothing. Raises InputError when it cannot be written."""
    write_whole(path, perfetto(record).encode(), "timeline")


def _read_name(read: Read) -> str:
    return f"layer {read.key.layer} expert {read.key.expert} level {read.key.level}"


def _name(track: int, kind: str, name: str) -> Event:
    return {"ph": "M", "pid": 1, "tid": track, "name": kind, "args": {"name": name}}


def _span(track: int, name: str, begin: int, end: int, zero: int) -> Event:
    return {
        "ph": "X",
        "pid": 1,
        "tid": track,
        "name": name,
        "ts": (begin - zero) / 1e3,
        "dur": (end - begin) / 1e3,
    }
