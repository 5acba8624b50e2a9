# SPDX-License-Identifier: Apache-2.0
"""What a run measures, what it keeps in memory and how much, and that it can be interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.experts.file.store import Store
from codesign.experts.run.metrics import measure, merged, union_ns, within_ns
from codesign.experts.run.options import OVERHEAD_BYTES, RuntimeOptions
from codesign.experts.run.placement import block_counts
from codesign.experts.run.reader import Faults, Io, ReaderOptions, Transport, forget_file
from codesign.experts.run.routing import drawn_trace
from codesign.experts.run.runtime import Runtime
from codesign.experts.run.session import Replay, parse_budget, run_trace
from codesign.experts.run.trace import perfetto
from codesign.spec.moe import ExpertFormat
from tests.experts.streaming import BATCHES, SCHEDULES, expected, layer_of, make_store


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12))
def test_union_counts_every_nanosecond_once(spans: list[tuple[int, int]]) -> None:
    intervals = [(begin, begin + length) for begin, length in spans]
    covered = {t for a, b in intervals for t in range(a, b)}
    assert union_ns(intervals) == len(covered)
    for begin, end in ((0, 90), (7, 31), (30, 30), (50, 61)):
        assert within_ns(merged(intervals), begin, end) == len(covered & set(range(begin, end)))


def test_what_is_measured_adds_up(stores: dict[tuple[ExpertFormat, bool], Store]) -> None:
    store = stores[ExpertFormat.NESTED, True]
    trace = drawn_trace(2, 6, 2, (8, 1, 1, 1), seed=6)
    for schedule in SCHEDULES:
        options = RuntimeOptions(store.expert_bytes // 2, schedule, ReaderOptions(faults=Faults(delay_us=1000)))
        result = run_trace(store, Replay(trace, drawn_trace(2, 6, 2, (20,), seed=5), check=4), options)
        m, record = result.metrics, result.record
        assert result.checked == 8
        assert m.tokens == 11
        assert m.ideal_ratio >= 1.0
        assert m.io_seconds + m.stall_seconds <= 2 * m.seconds
        assert m.compute_seconds + m.stall_seconds <= m.seconds
        assert 0 <= m.hit_rate <= 1
        read = sum(r.bytes for r in record.reads if not r.cancelled)
        ahead = record.block_bytes - record.hit_bytes
        assert read >= ahead or m.hit_rate > 0
        assert m.read_bytes == read
        if not schedule.ahead:
            assert read == ahead  # nothing is read in vain
            overlaps = [(s.begin, s.end) for s in record.spans if s.kind.value == "compute"]
            reads = [(r.started, r.arrived) for r in record.reads]
            both = union_ns(overlaps) + union_ns(reads) - union_ns(overlaps + reads)
            assert both == 0  # the baseline overlaps nothing
        counts = {one.layer for one in record.layers}
        assert counts == {0, 1}


def test_the_timeline_opens(stores: dict[tuple[ExpertFormat, bool], Store]) -> None:
    store = stores[ExpertFormat.INT8, True]
    result = run_trace(store, Replay(drawn_trace(2, 6, 2, (4, 1), 0)), RuntimeOptions(store.expert_bytes // 2))
    events = json.loads(perfetto(result.record))["traceEvents"]
    assert {e["ph"] for e in events} == {"M", "X", "C"}
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert {"compute thread", "layers", "read 1"} <= set(tracks.values())
    spans = [e for e in events if e["ph"] == "X"]
    assert all(e["dur"] >= 0 and e["tid"] in tracks for e in spans)
    for track in tracks:  # spans of one track do not overlap
        ends = 0.0
        for e in sorted((e for e in spans if e["tid"] == track), key=lambda e: e["ts"]):
            assert e["ts"] >= ends - 1e-6
            ends = e["ts"] + e["dur"]
    total = sum(r.bytes for r in result.record.reads if not r.cancelled)
    assert max(e["args"]["bytes"] for e in events if e["ph"] == "C") == total


def test_the_hot_set_is_what_the_trace_used_most(stores: dict[tuple[ExpertFormat, bool], Store]) -> None:
    store = stores[ExpertFormat.NESTED, True]
    hot = drawn_trace(2, 6, 2, (50,), seed=9)
    options = RuntimeOptions(store.expert_bytes * 3 // 4)
    counts = block_counts(store, hot, options)
    with Runtime(store, options, hot) as runtime:
        runtime.warm()
        pinned = set(runtime.placement.plan.pinned)
        for key in pinned:
            for other in set(counts) - pinned:
                smaller = store.block(*other).padded_bytes <= store.block(*key).padded_bytes
                assert counts[key] >= counts[other] or not smaller
        runtime.start()
        for number, tokens in BATCHES:
            runtime.layer(number, expected(store, number, tokens)[0])
        record = runtime.stop()
    assert pinned
    assert not pinned & {read.key for read in record.reads}


def test_the_arena_is_full_of_what_the_trace_used_most(stores: dict[tuple[ExpertFormat, bool], Store]) -> None:
    """Before the clock runs, with a hot set and without one."""
    hot = drawn_trace(2, 6, 2, (50,), seed=9)
    for kind in (ExpertFormat.INT8, ExpertFormat.NESTED):
        store = stores[kind, True]
        for pin in (0.0, 0.5):
            options = RuntimeOptions(store.expert_bytes // 2, pin=pin)
            counts = block_counts(store, hot, options)
            with Runtime(store, options, hot) as runtime:
                here = runtime.placement.warmed
                plan = runtime.placement.plan
            assert len(here) == len(set(here))
            assert plan.pinned.keys() <= set(here)
            for slots in plan.classes:
                alike = [key for key in counts if runtime.placement.sizes[key] == slots.size and key not in plan.pinned]
                found = [key for key in alike if key in here]
                assert len(found) == min(slots.count, len(alike))
                least = min(counts[key] for key in found)
                assert all(counts[key] <= least for key in alike if key not in here)


def test_what_fits_is_read_before_the_clock_runs(stores: dict[tuple[ExpertFormat, bool], Store]) -> None:
    for (kind, _), store in stores.items():
        with Runtime(store, RuntimeOptions(store.expert_bytes), drawn_trace(2, 6, 2, (1,), seed=9)) as runtime:
            runtime.warm()
            runtime.start()
            for number, tokens in BATCHES:
                batch, wanted = expected(store, number, tokens)
                np.testing.assert_array_equal(runtime.layer(number, batch), wanted, err_msg=kind.value)
            record = runtime.stop()
        assert not record.reads
        metrics = measure(record)
        assert metrics.hit_rate == 1
        assert metrics.hidden_fraction == 0


def test_whoever_looks_for_work_takes_no_processor_from_those_who_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 5})
    reader = ReaderOptions(Io.CACHED, watch_us=70)
    for threads, watch in ((1, 70), (2, 70), (3, 0), (8, 0)):
        reading = RuntimeOptions(1, reader=reader, threads=threads).reading
        assert reading == replace(reader, watch_us=watch)


def test_budgets() -> None:
    assert [parse_budget(t, 1000) for t in ("50%", "12.5%", "77", "2K", "1.5MiB", "1GB")] == [
        500, 125, 77, 2048, 3 << 19, 1 << 30,
    ]  # fmt: skip
    for text in ("", "x", "-5", "5 apples", "nan", "1e9", "%", "0", "0%"):
        with pytest.raises(InputError, match=r"^budget must be "):
            parse_budget(text, 1000)


_CHILD = """
import sys
from pathlib import Path
from codesign.experts.run.metrics import peak_rss_bytes
from codesign.experts.run.reader import *
from codesign.experts.run.routing import drawn_trace
from codesign.experts.run.options import *
from codesign.experts.run.runtime import *
from codesign.experts.run.session import Replay, run_trace
from codesign.experts.file.store import Store
store, budget = Store.open(Path(sys.argv[1])), int(sys.argv[2])
options = RuntimeOptions(budget, reader=ReaderOptions(Io(sys.argv[3]), Transport(sys.argv[4])), threads=2)
trace = drawn_trace(len(store.layers), 16, 4, (32, *(1,) * 8), 1)
result = run_trace(store, Replay(trace, drawn_trace(len(store.layers), 16, 4, (64,), 0)), options)
print(peak_rss_bytes(), result.metrics.read_bytes)
"""


@cache
def _large(folder: Path) -> Store:
    layers = tuple(layer_of(f"l{n}", 1024, 1024, 16, 4) for n in range(4))
    return make_store(folder / "large", ExpertFormat.INT8, layers)


@pytest.mark.parametrize(("io", "transport"), [(io, t) for io in Io for t in Transport])
def test_memory_stays_within_budget_and_constant(
    tmp_path_factory: pytest.TempPathFactory, io: Io, transport: Transport
) -> None:
    """200 MB of experts, by the system's own accounting (VmHWM) in a process of its own."""
    store = _large(tmp_path_factory.getbasetemp())
    assert store.expert_bytes > 190_000_000
    forget_file(store.path)
    for share in (8, 2):
        budget = store.expert_bytes // share
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, str(store.path), str(budget), io.value, transport.value],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        peak, read = map(int, done.stdout.split())
        assert read > 1.5 * budget
        assert peak <= budget + OVERHEAD_BYTES, (peak - budget) >> 20
        assert peak >= budget // 2  # the arena was used


def test_ctrl_c_ends_a_run(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", ExpertFormat.INT8, (layer_of(),))
    code = """
import sys
from pathlib import Path
from codesign.experts.run.reader import *
from codesign.experts.run.routing import drawn_trace
from codesign.experts.run.options import *
from codesign.experts.run.runtime import *
from codesign.experts.run.session import Replay, run_trace
from codesign.experts.file.store import Store
store = Store.open(Path(sys.argv[1]))
print("running", flush=True)
options = RuntimeOptions(store.expert_bytes, reader=ReaderOptions(faults=Faults(delay_us=60_000_000)))
run_trace(store, Replay(drawn_trace(1, 6, 2, (4,), 1)), options)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(store.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    assert "leaked" not in errors  # nothing of the native module outlives the interpreter
