# SPDX-License-Identifier: Apache-2.0
"""Routing that is known early: right or wrong it changes no bit, and what it names is read before its layer's turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.experts.file.store import Store
from codesign.experts.run.arena import BlockKey
from codesign.experts.run.compute import Batch
from codesign.experts.run.foresight import drawn_prediction
from codesign.experts.run.options import RuntimeOptions
from codesign.experts.run.reader import Faults, Io, ReaderOptions, Transport
from codesign.experts.run.routing import drawn_trace, trace_of_gates
from codesign.experts.run.runtime import Runtime
from codesign.experts.run.schedule import Order, Schedule
from codesign.experts.run.session import Replay, run_trace
from codesign.kernels.native import native
from codesign.reference.moe import choose_widths
from codesign.spec.moe import ExpertFormat, WidthPolicy
from tests.experts.streaming import batch_of, judged, layer_of, make_store

LAYERS, EXPERTS, TOP_K = 4, 12, 2
AHEAD = [Schedule(order, hits) for order in (Order.SEQUENTIAL, Order.HOTTEST_BIT_FIRST) for hits in (False, True)]
TRACE = drawn_trace(LAYERS, EXPERTS, TOP_K, (5, *(1,) * 8), seed=7)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[ExpertFormat, Store]:
    folder = tmp_path_factory.mktemp("stores")
    layers = tuple(layer_of(name, experts=EXPERTS) for name in "abcd")
    return {kind: make_store(folder / kind.value, kind, layers) for kind in ExpertFormat}


@pytest.fixture(scope="module")
def store(stores: dict[ExpertFormat, Store]) -> Store:
    return stores[ExpertFormat.NESTED]


# -- predictions ------------------------------------------------------------------------------------------------------


def test_a_prediction_names_the_share_of_experts_that_it_should() -> None:
    trace = drawn_trace(3, 16, 4, (64, *(1,) * 136), seed=1)
    for recall in (0.0, 0.3, 0.9, 1.0):
        found = drawn_prediction(trace, recall, 2)
        assert found.batches == trace.batches
        np.testing.assert_array_equal(found.gates, trace.gates)
        right = found.experts == trace.experts
        assert abs(right.mean() - recall) < 0.03
        for t in range(200):
            for layer in range(3):
                named, used = found.experts[t, layer], trace.experts[t, layer]
                assert len(set(named.tolist())) == 4
                assert not set(named[~right[t, layer]].tolist()) & set(used.tolist())
    np.testing.assert_array_equal(drawn_prediction(trace, 0.5, 3).experts, drawn_prediction(trace, 0.5, 3).experts)


@pytest.mark.parametrize("recall", [-0.1, 1.1, float("nan")])
def test_a_recall_that_is_none(recall: float) -> None:
    with pytest.raises(InputError, match=r"^recall must be from 0 to 1, not "):
        drawn_prediction(TRACE, recall, 0)


# -- residency --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half_life", [0.0, 4.0])
def test_what_is_named_gives_way_last_and_not_to_what_is_named(half_life: float) -> None:
    """Two slots, three blocks of as many layers."""
    residency = native().Residency([(1, 2, 0)], [(n, 1, -1, 0.0) for n in range(4)], half_life)
    for block in (0, 1):
        residency.begin_load(block)
        residency.end_load(block)
    residency.name(0)  # now used later than block 1
    assert residency.begin_load(2, native().Keep(named=True)) == 1
    residency.end_load(2)
    residency.name(2)
    assert residency.begin_load(3, native().Keep(named=True)) == -1
    assert residency.begin_load(3) == 0  # what is needed now does
    residency.end_load(3)
    residency.forget(2)
    assert (residency.named(0), residency.named(2)) == (True, False)
    assert residency.begin_load(0, native().Keep(named=True)) == 1


# -- bits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", AHEAD, ids=str)
@pytest.mark.parametrize("kind", list(ExpertFormat), ids=lambda k: k.value)
def test_right_and_wrong_predictions_give_the_references_bits(
    stores: dict[ExpertFormat, Store], kind: ExpertFormat, schedule: Schedule
) -> None:
    store = stores[kind]
    hot = drawn_trace(LAYERS, EXPERTS, TOP_K, (20,), seed=8)
    for share, foresight, recall in ((8, 1, 1.0), (8, 3, 0.5), (2, 9, 0.9), (1, 2, 0.0)):
        options = RuntimeOptions(store.expert_bytes // share, schedule, foresight=foresight)
        result = run_trace(store, Replay(TRACE, hot, check=len(TRACE.batches), recall=recall), options)
        assert result.checked == LAYERS * len(TRACE.batches)


@pytest.mark.parametrize("transport", list(Transport))
def test_any_blocks_may_be_named(store: Store, transport: Transport) -> None:
    """Of any layers, also the current one, in any order, twice; on a slow disk that reads in pieces."""
    draws = np.random.default_rng(11)
    faults = ReaderOptions(transport=transport, faults=Faults(delay_us=300, short_reads=True), chunk=4096, depth=2)
    blocks = LAYERS * EXPERTS * 3
    for share in (12, 3):
        with Runtime(store, RuntimeOptions(store.expert_bytes // share, reader=faults)) as runtime:
            for step in range(24):
                number = step % LAYERS
                batch = batch_of(store, number, int(draws.integers(1, 4)), seed=step)
                named = draws.integers(0, blocks, int(draws.integers(0, 40))).tolist()
                found = runtime.layer(number, batch, (number + 1) % LAYERS, named)
                np.testing.assert_array_equal(found, judged(store, number, batch))


def choosing(store: Store, number: int, experts: tuple[int, int]) -> Batch:
    """A token for these experts."""
    gates = np.zeros((1, EXPERTS), dtype=np.uint16)
    gates[0, experts] = 1 << 14
    return replace(
        batch_of(store, number, 1, seed=0), gates=gates, widths=choose_widths(gates, store.kind, WidthPolicy())
    )


@pytest.mark.parametrize("transport", list(Transport))
def test_what_arrives_between_two_looks_is_seen(stores: dict[ExpertFormat, Store], transport: Transport) -> None:
    """Named blocks are on their way to all slots when a layer begins, and arrive while it asks what to load."""
    store = stores[ExpertFormat.TERNARY]
    pinned, missing = choosing(store, 0, (0, 1)), choosing(store, 1, (2, 3))
    hot = trace_of_gates("the first two of each layer", [[pinned.gates] * LAYERS])
    late = ReaderOptions(Io.CACHED, transport, watch_us=20_000, faults=Faults(delay_us=300, late_us=2000))
    budget = store.expert_bytes // (LAYERS * EXPERTS) * (LAYERS * TOP_K + 2)
    wanted = [judged(store, n, batch) for n, batch in enumerate((pinned, missing))]
    with Runtime(store, RuntimeOptions(budget, reader=late), hot) as runtime:
        runtime.warm()
        for step in range(150):
            named = [EXPERTS + expert for expert in ((4, 5, 6, 7), (8, 9, 10, 11))[step % 2]]
            np.testing.assert_array_equal(runtime.layer(0, pinned, 1, named), wanted[0])
            np.testing.assert_array_equal(runtime.layer(1, missing), wanted[1])


# -- what it is for ---------------------------------------------------------------------------------------------------


def test_what_is_foreseen_is_counted(store: Store) -> None:
    """All of it with a perfect prediction, but for the layers that begin a batch; none without."""
    options = [RuntimeOptions(store.expert_bytes // 4, foresight=n) for n in (0, 1, 3)]
    none, one, all_ = (run_trace(store, Replay(TRACE), o) for o in options)
    assert none.metrics.foreseen_rate == 0
    first = sum(len(names) for names in _demand(store, options[1], 0))
    whole = sum(len(names) for layer in range(LAYERS) for names in _demand(store, options[1], layer))
    assert one.record.foreseen == all_.record.foreseen == whole - first
    some = run_trace(store, Replay(TRACE, recall=0.5), options[1])
    assert 0.2 < some.metrics.foreseen_rate < one.metrics.foreseen_rate


def _demand(store: Store, options: RuntimeOptions, layer: int) -> list[list[int]]:
    with Runtime(store, options) as runtime:
        return [runtime.placement.named(layer, TRACE.dense_gates(batch, layer)) for batch in range(len(TRACE.batches))]


def test_what_is_named_is_asked_for_before_its_turn(store: Store) -> None:
    """Nothing that is not named, and the named ones while the layers below are computed."""
    reads = {}
    for foresight in (0, 1):
        options = RuntimeOptions(store.expert_bytes // 6, foresight=foresight, pin=0.0)
        trace = drawn_trace(LAYERS, EXPERTS, TOP_K, (1,) * 8, seed=7)
        record = run_trace(store, Replay(trace), options).record
        early = 0
        for read in record.reads:
            turns = [one for one in record.layers if one.begin <= read.submitted <= one.end]
            early += bool(turns) and turns[0].layer == read.key.layer - 1
            assert not turns or turns[0].layer in (read.key.layer, read.key.layer - 1)
        reads[foresight] = early
    assert reads[0] == 0  # one token makes no block likely
    assert reads[1] > 8


def test_the_blocks_that_a_routing_names(store: Store) -> None:
    """In the order of the schedule, at the widths of the gates."""
    gates = np.zeros((2, EXPERTS), dtype=np.uint16)
    gates[0, [1, 5]] = 20000, 100  # all levels of expert 1, the lowest of 5
    gates[1, 5] = 9000
    with Runtime(store, RuntimeOptions(store.expert_bytes, Schedule(Order.SEQUENTIAL))) as runtime:
        keys = [(key.level, key.expert) for key in (_key(block) for block in runtime.placement.named(2, gates))]
    assert keys == [(0, 1), (0, 5), (1, 1), (1, 5), (2, 1), (2, 5)]


def _key(block: int) -> BlockKey:
    layer, rest = divmod(block, 3 * EXPERTS)
    assert layer == 2
    return BlockKey(layer, *divmod(rest, EXPERTS))


def test_a_schedule_that_reads_nothing_ahead(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^foresight must be 0 with on-demand, which reads nothing ahead, not 2; choose another"
    ):
        RuntimeOptions(1 << 20, Schedule(Order.ON_DEMAND), foresight=2)
