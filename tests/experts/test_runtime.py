# SPDX-License-Identifier: Apache-2.0
"""The runtime gives the reference's bits, whatever the schedule, budget, transport, threads and variant."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.experts.file.store import Store
from codesign.experts.run.compute import Batch
from codesign.experts.run.options import RuntimeOptions, choose
from codesign.experts.run.reader import Faults, Io, ReaderOptions, Transport
from codesign.experts.run.routing import RoutingTrace, drawn_trace
from codesign.experts.run.runtime import Runtime
from codesign.experts.run.schedule import Schedule
from codesign.kernels.native import variants
from codesign.reference.moe import choose_widths
from codesign.spec.moe import ExpertFormat, WidthPolicy
from tests.experts.streaming import BATCHES, SCHEDULES, batch_of, expected, judged, layer_of, make_store


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
