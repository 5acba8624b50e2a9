# SPDX-License-Identifier: Apache-2.0
"""The runtime gives the reference's bits, whatever the schedule, budget, transport, threads and variant."""

from __future__ import annotations

import errno
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
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.experts.file.store import Store
from codesign.experts.run.compute import Batch
from codesign.experts.run.metrics import measure, merged, union_ns, within_ns
from codesign.experts.run.options import OVERHEAD_BYTES, RuntimeOptions, choose
from codesign.experts.run.placement import block_counts
from codesign.experts.run.reader import Faults, Io, ReaderOptions, Transport, forget_file
from codesign.experts.run.routing import RoutingTrace, drawn_trace
from codesign.experts.run.runtime import Runtime
from codesign.experts.run.schedule import Order, Schedule
from codesign.experts.run.session import Replay, parse_budget, run_trace
from codesign.experts.run.trace import perfetto
from codesign.kernels.native import variants
from codesign.reference.moe import choose_widths
from codesign.spec.moe import ExpertFormat, WidthPolicy
from tests.experts.streaming import batch_of, judged, layer_of, make_store

SCHEDULES = [Schedule(order, hits) for order in Order for hits in (False, True)]
BATCHES = ((0, 1), (1, 1), (0, 9), (1, 9), (0, 2))
"""(layer, tokens), one after the other through one runtime."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[ExpertFormat, bool], Store]:
    folder = tmp_path_factory.mktemp("stores")
    made = {}
    for kind in ExpertFormat:
        for gated in (True, False):
            layers = layer_of("a", gated=gated), layer_of("b", dim=33, hidden=140, gated=gated)
            made[kind, gated] = make_store(folder / f"{kind.value}{gated}", kind, layers)
    return made


_EXPECTED: dict[tuple[Path, int, int], tuple[Batch, np.ndarray]] = {}


def expected(store: Store, number: int, tokens: int) -> tuple[Batch, np.ndarray]:
    key = store.path, number, tokens
    if key not in _EXPECTED:
        batch = batch_of(store, number, tokens, seed=3)
        _EXPECTED[key] = batch, judged(store, number, batch)
    return _EXPECTED[key]


def least(store: Store) -> int:
    """The smallest budget, from the refusal."""
    with pytest.raises(InputError, match=r"^budget must be at least \d+ bytes") as caught:
        Runtime(store, RuntimeOptions(1))
    return int(str(caught.value).split()[5])


def run_all(store: Store, options: RuntimeOptions, hot: RoutingTrace | None = None) -> Runtime:
    with Runtime(store, options, hot) as runtime:
        runtime.start()
        for at, (number, tokens) in enumerate(BATCHES):
            batch, wanted = expected(store, number, tokens)
            following = BATCHES[at + 1][0] if at + 1 < len(BATCHES) else None
            found = runtime.layer(number, batch, following)
            assert found.dtype == np.int16
            assert np.array_equal(found, wanted), (number, tokens)
        runtime.stop()
    return runtime


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("kind", list(ExpertFormat))
def test_the_judge_is_not_trivial(
    stores: dict[tuple[ExpertFormat, bool], Store], kind: ExpertFormat, gated: bool
) -> None:
    """Outputs span int16, differ from the residual, and depend on the widths."""
    store = stores[kind, gated]
    batch, wanted = expected(store, 1, 9)
    changed = (wanted != batch.residual).any(axis=1)
    assert changed.all()
    assert len(np.unique(wanted)) > 200
    assert (np.abs(wanted) < 32767).mean() > 0.7
    if len(kind.widths) > 1:
        assert len(set(batch.widths[batch.gates > 0].tolist())) > 1
        narrow = replace(batch, widths=np.full_like(batch.widths, kind.widths[0]))
        assert not np.array_equal(judged(store, 1, narrow), wanted)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("gated", [True, False], ids=["silu", "gelu"])
@pytest.mark.parametrize("kind", list(ExpertFormat), ids=lambda k: k.value)
def test_every_format_and_schedule_gives_the_references_bits(
    stores: dict[tuple[ExpertFormat, bool], Store], kind: ExpertFormat, gated: bool, schedule: Schedule
) -> None:
    store = stores[kind, gated]
    hot = drawn_trace(2, 6, 2, (20,), seed=4)
    for budget in (least(store), store.expert_bytes // 2, store.expert_bytes):
        for trace in (None, hot):
            run_all(store, RuntimeOptions(max(budget, least(store)), schedule), trace)


@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize("io", list(Io))
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("variant", variants())
def test_every_transport_thread_count_and_variant(
    stores: dict[tuple[ExpertFormat, bool], Store], variant: str, threads: int, io: Io, transport: Transport
) -> None:
    for kind in (ExpertFormat.NESTED, ExpertFormat.RESIDUAL, ExpertFormat.TRITS):
        store = stores[kind, True]
        options = RuntimeOptions(
            store.expert_bytes // 2,
            reader=ReaderOptions(io, transport, depth=2, chunk=4096),
            threads=threads,
            variant=variant,
        )
        runtime = run_all(store, options)
        assert runtime.reader.transport is transport


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(list(ExpertFormat)),
    gated=st.booleans(),
    dim=st.integers(1, 150),
    hidden=st.integers(1, 150),
    experts=st.integers(1, 5),
    tokens=st.integers(0, 6),
    schedule=st.sampled_from(SCHEDULES),
    seed=st.integers(0, 1000),
    sets=st.booleans(),
)
def test_any_shape(
    tmp_path_factory: pytest.TempPathFactory,
    kind: ExpertFormat,
    gated: bool,
    dim: int,
    hidden: int,
    experts: int,
    tokens: int,
    schedule: Schedule,
    seed: int,
    sets: bool,
) -> None:
    layer = layer_of("any", dim, hidden, experts, min(2, experts), gated)
    path = tmp_path_factory.mktemp("any") / "store"
    store = make_store(path, kind, (layer,), seed, len(kind.widths) if sets else 1)
    batch = batch_of(store, 0, max(1, tokens), seed)
    batch = Batch(*(array[:tokens] for array in (batch.x, batch.gates, batch.residual, batch.widths)))
    with Runtime(store, RuntimeOptions(least(store), schedule)) as runtime:
        assert np.array_equal(runtime.layer(0, batch), judged(store, 0, batch))


@pytest.mark.parametrize("gated", [True, False], ids=["silu", "gelu"])
@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize("kind", list(ExpertFormat), ids=lambda k: k.value)
def test_blocks_of_many_chunks_are_computed_as_they_arrive(
    tmp_path: Path, kind: ExpertFormat, transport: Transport, gated: bool
) -> None:
    store = make_store(tmp_path / "store", kind, (layer_of("wide", 300, 130, 4, gated=gated),))
    slow = ReaderOptions(transport=transport, depth=2, chunk=4096, faults=Faults(delay_us=300))
    for tokens in (1, 7):
        batch = batch_of(store, 0, tokens, seed=5)
        with Runtime(store, RuntimeOptions(store.expert_bytes, reader=slow)) as runtime:
            runtime.start()
            assert np.array_equal(runtime.layer(0, batch), judged(store, 0, batch))
            spans = runtime.stop().spans
        parts = sum(span.name.endswith("as it arrives") for span in spans)
        assert parts >= 4 if kind is not ExpertFormat.RESIDUAL else parts == 0  # which needs all levels at once


def test_planned_passes_run_one_after_the_other(stores: dict[tuple[ExpertFormat, bool], Store]) -> None:
    """Each may read what the one before wrote; those of another runtime are refused."""
    store = stores[ExpertFormat.NESTED, True]
    batch, wanted = expected(store, 0, 9)
    first, second = np.empty_like(batch.residual), np.empty_like(batch.residual)
    again = replace(batch, residual=first)
    options = RuntimeOptions(store.expert_bytes // 2)
    with Runtime(store, options) as runtime, Runtime(store, options) as other:
        runtime.run([runtime.plan(0, batch, first, 0), runtime.plan(0, again, second)])
        assert np.array_equal(first, wanted)
        assert np.array_equal(second, judged(store, 0, replace(batch, residual=wanted)))
        with pytest.raises(ValueError, match=r"^a pass must be of the stream that planned it$"):
            other.run([runtime.plan(0, batch, first)])


def test_a_token_may_use_no_expert(stores: dict[tuple[ExpertFormat, bool], Store]) -> None:
    store = stores[ExpertFormat.NESTED, True]
    batch, _ = expected(store, 0, 9)
    gates = batch.gates.copy()
    gates[2:5] = 0
    empty = replace(batch, gates=gates)
    nothing = replace(batch, gates=np.zeros_like(gates))
    with Runtime(store, RuntimeOptions(store.expert_bytes)) as runtime:
        assert np.array_equal(runtime.layer(0, empty), judged(store, 0, empty))
        assert np.array_equal(runtime.layer(0, nothing), batch.residual)


@given(
    gates=st.lists(st.lists(st.integers(0, 1 << 15), min_size=5, max_size=5), max_size=6),
    kind=st.sampled_from(list(ExpertFormat)),
    thresholds=st.tuples(st.integers(0, 1 << 15), st.integers(0, 1 << 15)).map(sorted),
)
def test_widths_are_those_of_the_policy(gates: list[list[int]], kind: ExpertFormat, thresholds: list[int]) -> None:
    array = np.array(gates, dtype=np.uint16).reshape(len(gates), 5)
    policy = WidthPolicy(high=thresholds[1], low=thresholds[0])
    wanted = choose_widths(array.astype(np.int64), kind, policy)
    assert np.array_equal(choose(kind, array, RuntimeOptions(1, policy=policy)), wanted)


@pytest.mark.parametrize("width", [2, 4, 8])
def test_one_width_for_all(stores: dict[tuple[ExpertFormat, bool], Store], width: int) -> None:
    store = stores[ExpertFormat.NESTED, False]
    batch, _ = expected(store, 0, 9)
    options = RuntimeOptions(store.expert_bytes // 2, width=width)
    with Runtime(store, options) as runtime:
        chosen = runtime.batch(batch.x, batch.gates, batch.residual)
        assert set(chosen.widths[batch.gates > 0].tolist()) == {width}
        assert np.array_equal(runtime.layer(0, chosen), judged(store, 0, chosen))


# -- bad input and a bad disk -----------------------------------------------------------------------------------------


def test_bad_batches_and_options(stores: dict[tuple[ExpertFormat, bool], Store]) -> None:
    store = stores[ExpertFormat.NESTED, True]
    batch, _ = expected(store, 0, 9)
    with Runtime(store, RuntimeOptions(store.expert_bytes)) as runtime:
        with pytest.raises(InputError, match=r"^x of layer a must be int8 \[9, 40\], not int64 \[9, 40\]; convert it$"):
            runtime.layer(0, replace(batch, x=batch.x.astype(np.int64)))  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"^gates of layer b must be uint16 \[9, 6\], not uint16 \[9, 5\]"):
            runtime.layer(1, replace(expected(store, 1, 9)[0], gates=batch.gates[:, :5]))
        with pytest.raises(InputError, match=r"^width must be one of 2, 4, 8 for nested experts, not 3"):
            runtime.layer(0, replace(batch, widths=np.full_like(batch.widths, 3)))
        assert np.array_equal(runtime.layer(0, batch), expected(store, 0, 9)[1])
    with pytest.raises(InputError, match=r"^width must be one of 2, 4, 8"):
        Runtime(store, RuntimeOptions(store.expert_bytes, width=5))
    with pytest.raises(InputError, match=r"^threads must be in 1\.\."):
        Runtime(store, RuntimeOptions(store.expert_bytes, threads=0))
    with pytest.raises(InputError, match=r"^trace must have the 6 experts of the store's layer a, not 7; record one"):
        Runtime(store, RuntimeOptions(store.expert_bytes), drawn_trace(2, 7, 2, (4,), 0))
    with pytest.raises(InputError, match=r"^trace must have the store's 2 layers, not 3; record one"):
        Runtime(store, RuntimeOptions(store.expert_bytes), drawn_trace(3, 6, 2, (4,), 0))


@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (Faults(error_at=3), "must be readable, not fail with EIO"),
        (Faults(error_at=3, error=errno.ENOSPC), "must be readable, not fail with ENOSPC"),
        (Faults(flip_at=3), "must have the checksum"),
    ],
)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_a_bad_disk_ends_the_run_with_one_line(
    stores: dict[tuple[ExpertFormat, bool], Store],
    schedule: Schedule,
    faults: Faults,
    message: str,
    transport: Transport,
) -> None:
    store = stores[ExpertFormat.NESTED, True]
    before = len(list(Path("/proc/self/task").iterdir()))
    with (
        pytest.raises(InputError, match=message + r".*\(offset \d+, level \d of expert \d of layer \d\)"),
        Runtime(
            store, RuntimeOptions(store.expert_bytes, schedule, ReaderOptions(transport=transport, faults=faults))
        ) as runtime,
    ):
        runtime.layer(0, expected(store, 0, 9)[0], 1)
    assert len(list(Path("/proc/self/task").iterdir())) == before


@pytest.mark.parametrize("transport", list(Transport))
def test_a_difficult_disk_changes_no_bit(stores: dict[tuple[ExpertFormat, bool], Store], transport: Transport) -> None:
    store = stores[ExpertFormat.NESTED, True]
    for faults in (
        Faults(short_reads=True),
        Faults(delay_us=2000),
        Faults(refuse_direct=True, short_reads=True),
        Faults(refuse_uring=True),
    ):
        options = ReaderOptions(transport=transport, faults=faults)
        run_all(store, RuntimeOptions(store.expert_bytes // 2, reader=options))


def test_a_store_that_shrinks_during_the_run(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", ExpertFormat.INT8, (layer_of(),))
    with Runtime(store, RuntimeOptions(store.expert_bytes)) as runtime:
        batch = batch_of(store, 0, 9, 1)
        os.truncate(store.path, store.block(0, 0, 0).offset)
        with pytest.raises(InputError, match="must stay as it is while it is read"):
            runtime.layer(0, batch)


# -- measures ---------------------------------------------------------------------------------------------------------


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
