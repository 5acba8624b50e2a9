# SPDX-License-Identifier: Apache-2.0
"""Orders, and the admission of blocks: whatever arrives when, everything is computed once and nothing deadlocks."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.experts.run.arena import ArenaPlan, BlockKey, plan_arena
from codesign.experts.run.schedule import Order, Schedule, ahead_of_layer, expected_use
from codesign.kernels.native import native
from tests.experts.schedules import Demand, LayerRun, Residency
from tests.experts.streaming import SCHEDULES

SIZES = (1, 1, 2)
"""Bytes of a block by level: as of nested experts."""


def steps(order: Order, demand: Demand) -> list[tuple[int, int]]:
    """The blocks that any token reads, in their order."""
    asked = [native().Demand(e, v, 0, n) for (e, v), n in demand.items()]
    return [(one.expert, one.level) for one in native().in_order(order.native, asked)]


def demand_of(widths: list[int]) -> dict[tuple[int, int], int]:
    """Tokens by (expert, level) when expert e has `widths[e] % 4` levels and `widths[e] // 4 + 1` tokens at each."""
    return {(e, level): w // 4 + 1 for e, w in enumerate(widths) for level in range(w % 4)}


def test_on_demand_goes_expert_by_expert() -> None:
    assert steps(Order.ON_DEMAND, {(1, 0): 1, (0, 1): 2, (0, 0): 3, (1, 1): 0}) == [(0, 0), (0, 1), (1, 0)]


def test_sequential_is_the_order_of_the_file() -> None:
    assert steps(Order.SEQUENTIAL, {(1, 0): 1, (0, 1): 2, (0, 0): 3, (1, 1): 1}) == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_hottest_bit_first_takes_the_head_with_most_tokens() -> None:
    demand = {(0, 0): 5, (0, 1): 4, (0, 2): 1, (1, 0): 7, (1, 1): 2, (2, 0): 3, (3, 0): 0}
    assert steps(Order.HOTTEST_BIT_FIRST, demand) == [(1, 0), (0, 0), (0, 1), (2, 0), (1, 1), (0, 2)]


@given(st.lists(st.integers(0, 40), max_size=12))
def test_hottest_bit_first_is_the_definition(widths: list[int]) -> None:
    demand = demand_of(widths)
    queues = {e: [v for v in range(3) if demand.get((e, v), 0)] for e in range(len(widths))}
    found = []
    while any(queues.values()):
        e = max((e for e in queues if queues[e]), key=lambda e: (demand[e, queues[e][0]], -e))
        found.append((e, queues[e].pop(0)))
    assert steps(Order.HOTTEST_BIT_FIRST, demand) == found


@dataclass
class Machine:
    """Plays reader and compute thread in a random order, and checks what it sees."""

    run: LayerRun
    residency: Residency
    plan: ArenaPlan
    draws: random.Random
    flying: list[BlockKey] = field(default_factory=list)
    computed: list[tuple[int, int]] = field(default_factory=list)
    read: list[BlockKey] = field(default_factory=list)

    def go(self) -> None:
        while not self.run.done:
            moved = False
            while (load := self.run.next_load()) is not None:
                key, place = load
                assert 0 <= place <= self.plan.end - self.residency.size(key)
                self.flying.append(key)
                self.read.append(key)
                moved = True
            self.check_places()
            if self.flying and self.draws.random() < 0.5:
                self.arrive()
                moved = True
            for key in self.flying:
                if self.draws.random() < 0.2:
                    self.run.begun(key)
            step = self.run.next_step()
            if step is not None:
                self.compute(step)
            elif (begun := self.run.next_begun()) is not None:
                self.compute_begun(begun)
            elif not moved:
                assert self.flying, "deadlock"
                self.arrive()
        while self.flying:
            self.arrive()

    def arrive(self) -> None:
        self.run.arrived(self.flying.pop(self.draws.randrange(len(self.flying))))

    def compute(self, step: tuple[int, int]) -> None:
        for level in range(step[1], self.run.also_ready(step) + 1):
            one = step[0], level
            assert [(step[0], lower) for lower in range(level)] == [c for c in self.computed if c[0] == step[0]]
            for lower in range(level + 1):
                assert self.residency.resident(BlockKey(0, lower, step[0]))
            self.computed.append(one)
        for level in range(step[1], self.computed[-1][1] + 1):
            self.run.computed((step[0], level))

    def compute_begun(self, step: tuple[int, int]) -> None:
        """Its block is on its way, and every lower level of the expert was computed."""
        assert BlockKey(0, step[1], step[0]) in self.flying
        assert [(step[0], lower) for lower in range(step[1])] == [c for c in self.computed if c[0] == step[0]]

    def check_places(self) -> None:
        """No two blocks share a byte."""
        taken = {k: self.residency.place(k) for k in KEYS if self.residency.resident(k) or self.residency.loading(k)}
        spans = sorted((place, place + self.residency.size(key)) for key, place in taken.items())
        for (_, end), (begin, _) in itertools.pairwise(spans):
            assert end <= begin


KEYS = [BlockKey(0, level, expert) for expert in range(12) for level in range(3)]
ALL_SIZES = {key: SIZES[key.level] for key in KEYS}


@settings(max_examples=300, deadline=None)
@given(
    passes=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=12), min_size=1, max_size=4),
    budget=st.integers(4, 60),
    schedule=st.sampled_from(SCHEDULES),
    pin=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1 << 30),
)
def test_everything_is_computed_once_and_nothing_deadlocks(
    passes: list[list[int]], budget: int, schedule: Schedule, pin: float, seed: int
) -> None:
    draws = random.Random(seed)
    counts = {key: float(draws.randrange(5)) for key in KEYS}
    plan = plan_arena(budget, ALL_SIZES, counts, pin)
    assert plan.end <= budget
    residency = Residency(plan, ALL_SIZES)
    for widths in passes:
        demand = demand_of(widths)
        here = {k for k in KEYS if residency.resident(k)}
        machine = Machine(LayerRun(residency, 0, demand, schedule), residency, plan, draws)
        machine.go()
        assert sorted(machine.computed) == sorted(demand)
        if not schedule.ahead:
            experts = [e for e, _ in machine.computed]
            assert experts == sorted(experts) or schedule.hits_first
            assert [(k.expert, k.level) for k in machine.read] == [
                c for c in machine.computed if BlockKey(0, c[1], c[0]) in machine.read
            ]
        assert len(set(machine.read)) == len(machine.read) or not schedule.ahead or budget < 60
        if budget == 60 and not pin:
            assert not here & set(machine.read)


@given(st.lists(st.integers(4, 40), min_size=12, max_size=12), st.integers(0, 1 << 30))
def test_strict_orders_compute_in_their_order_when_all_fits(widths: list[int], seed: int) -> None:
    for order in (Order.SEQUENTIAL, Order.HOTTEST_BIT_FIRST):
        residency = Residency(plan_arena(60, ALL_SIZES, {}, 0), ALL_SIZES)
        demand = demand_of(widths)
        run = LayerRun(residency, 0, demand, Schedule(order))
        found = []
        loads = []
        while (load := run.next_load()) is not None:
            loads.append((load[0].expert, load[0].level))
        draws = random.Random(seed)
        flying = [BlockKey(0, level, e) for e, level in loads]
        while not run.done:
            step = run.next_step()
            if step is None:
                run.arrived(flying.pop(draws.randrange(len(flying))))
                continue
            found.append(step)
            run.computed(step)
        assert loads == found == steps(order, demand)


def test_hits_go_first() -> None:
    residency = Residency(plan_arena(60, ALL_SIZES, {}, 0), ALL_SIZES)
    for level in range(3):
        residency.load(BlockKey(0, level, 5))
    demand = demand_of([43] * 8)
    for order in Order:
        run = LayerRun(residency, 0, demand, Schedule(order, hits_first=True))
        assert run.next_load() is not None or order is Order.ON_DEMAND
        assert run.next_step() == (5, 0)
        late = LayerRun(residency, 0, demand, Schedule(order, hits_first=False))
        late.next_load()
        assert late.next_step() is None


def test_hits_wait_for_an_expert_that_gives_its_slot_back() -> None:
    """Experts 0 to 2 are pinned and hottest, 3 to 5 share two slots."""
    sizes = {BlockKey(0, 0, e): 1 for e in range(6)}
    counts = {BlockKey(0, 0, e): 5.0 for e in range(3)}
    residency = Residency(plan_arena(5, sizes, counts, 0.6), sizes)
    for e in range(3):
        residency.load(BlockKey(0, 0, e))
    demand = {(e, 0): 5 if e < 3 else 1 for e in range(6)}
    run = LayerRun(residency, 0, demand, Schedule(Order.HOTTEST_BIT_FIRST, hits_first=True))
    assert [load[0].expert for load in iter(run.next_load, None) if load] == [3, 4]
    assert run.next_step() == (0, 0)  # nothing else is here
    run.arrived(BlockKey(0, 0, 4))
    assert run.next_step() == (4, 0)
    run.computed((4, 0))
    load = run.next_load()
    assert load is not None
    assert load[0].expert == 5
    run.arrived(BlockKey(0, 0, 3))
    assert run.next_step() == (0, 0)  # nothing waits for room


def use(residency: Residency, experts: dict[int, int], layer: int = 0) -> list[int]:
    """A layer's pass over blocks of one level; experts with their tokens. Those that were read."""
    demand = {(expert, 0): tokens for expert, tokens in experts.items()}
    run = LayerRun(residency, layer, demand, Schedule(Order.SEQUENTIAL, hits_first=True))
    read = []
    while not run.native.done:
        for load in iter(run.next_load, None):
            assert load is not None
            read.append(load[0].expert)
            run.arrived(load[0])
        step = run.next_step()
        assert step is not None
        run.computed(step)
    return read


def test_the_least_recently_used_block_gives_way() -> None:
    sizes = {BlockKey(0, 0, e): 1 for e in range(4)}
    residency = Residency(plan_arena(2, sizes, {}, 0), sizes, half_life=0)
    assert [use(residency, {e: 1}) for e in (0, 1, 0, 2, 0, 1, 2)] == [[0], [1], [], [2], [], [1], [2]]


def test_the_block_of_the_fewest_uses_gives_way() -> None:
    """Which count half after two passes: three are worth more than the last one, for three passes."""
    sizes = {BlockKey(0, 0, e): 1 for e in range(9)}
    residency = Residency(plan_arena(2, sizes, {}, 0), sizes, half_life=2)
    assert [use(residency, {0: 1}) for _ in range(3)] == [[0], [], []]
    assert [use(residency, {e: 1}) for e in (1, 2, 3)] == [[1], [2], [3]]
    assert residency.resident(BlockKey(0, 0, 0))
    assert use(residency, {4: 1}) == [4]
    assert not residency.resident(BlockKey(0, 0, 0))


def test_what_all_use_once_does_not_flush_what_is_used_often() -> None:
    """A long batch reads every expert; those of most tokens stay."""
    sizes = {BlockKey(0, 0, e): 1 for e in range(20)}
    residency = Residency(plan_arena(7, sizes, {}, 0), sizes)
    for _ in range(3):
        use(residency, {e: {3: 60, 11: 40}.get(e, 5) for e in range(20)})
        assert all(residency.resident(BlockKey(0, 0, e)) for e in (3, 11))


def test_what_was_read_goes_first_when_reading_is_held_back() -> None:
    """Else the reader would wait until all that was here before is computed."""
    sizes = {BlockKey(0, 0, e): 1 for e in range(13)}
    residency = Residency(plan_arena(8, sizes, {}, 0), sizes)
    for _ in range(3):
        use(residency, {0: 1, 1: 1, 10: 1, 11: 1, 12: 1})
    demand = {(e, 0): 10 if e < 2 else 1 for e in (0, 1, 4, 5, 6, 7, 8)}
    run = LayerRun(residency, 0, demand, Schedule(Order.SEQUENTIAL, hits_first=True))
    for expert in (4, 5, 6):  # into free slots: a quarter of all slots and more is on its way
        load = run.next_load()
        assert load is not None
        assert load[0].expert == expert
        run.arrived(load[0])
    assert run.next_step() == (0, 0)
    assert run.next_load() is None  # 10, 11 and 12 are worth more than 7
    for expert in (4, 5):
        assert run.next_step() == (expert, 0)
        run.computed((expert, 0))
    load = run.next_load()
    assert load is not None
    assert load[0].expert == 7
    assert run.next_step() == (0, 0)
    assert all(residency.resident(BlockKey(0, 0, e)) for e in (10, 11, 12))


@pytest.mark.parametrize(("half_life", "hits"), [(0.0, 0), (4.0, 8)])
def test_of_equals_what_comes_round_latest_gives_way(half_life: float, hits: int) -> None:
    """Four layers in turn that use all of their experts alike, and slots for ten of the sixteen."""
    sizes = {BlockKey(layer, 0, e): 1 for layer in range(4) for e in range(4)}
    residency = Residency(plan_arena(10, sizes, {}, 0), sizes, half_life=half_life)
    for _ in range(6):
        read = [use(residency, dict.fromkeys(range(4), 1), layer) for layer in range(4)]
    assert 16 - sum(map(len, read)) == hits


def test_uses_that_a_trace_tells_of_count() -> None:
    sizes = {BlockKey(layer, 0, e): 1 for layer in range(2) for e in range(4)}
    plan, counts = plan_arena(3, sizes, {}, 0), {BlockKey(1, 0, 2): 0.9}
    residency = Residency(plan, sizes, counts=counts)
    residency.load(BlockKey(1, 0, 2))
    for e in (0, 1, 2, 3):
        use(residency, {e: 1})
    assert residency.resident(BlockKey(1, 0, 2))


def test_a_scan_does_not_flush_the_hot_set() -> None:
    sizes = {BlockKey(0, 0, e): 1 for e in range(20)}
    counts = {BlockKey(0, 0, e): 10.0 - e for e in range(5)}
    plan = plan_arena(8, sizes, counts, 0.5)
    assert sorted(k.expert for k in plan.pinned) == [0, 1, 2, 3]
    residency = Residency(plan, sizes)
    for e in [*range(20), *range(20)]:
        use(residency, {e: 1})
    assert all(residency.resident(key) for key in plan.pinned)


def test_a_budget_below_one_expert_is_refused_with_what_is_needed() -> None:
    with pytest.raises(InputError, match=r"^budget must be at least 4 bytes, the largest expert's blocks, not 3; "):
        plan_arena(3, ALL_SIZES, {}, 0.5)


def test_a_budget_for_everything_holds_everything() -> None:
    """Slots for all, or all of it pinned where a trace says that it may be: what the trace did not use as well."""
    whole = sum(ALL_SIZES.values())
    for counts, pin in (({}, 0.5), ({KEYS[0]: 1.0}, 0.0)):
        plan = plan_arena(whole, ALL_SIZES, counts, pin)
        assert not plan.pinned
        assert sum(one.count for one in plan.classes) == len(KEYS)
        assert plan.end == whole
    plan = plan_arena(whole, ALL_SIZES, {KEYS[0]: 1.0}, 0.5)
    assert plan.pinned.keys() == set(KEYS)
    assert not plan.classes
    assert plan.end == whole
    less = plan_arena(whole - 1, ALL_SIZES, dict.fromkeys(KEYS, 1.0), 0.5)
    assert less.classes
    assert less.end < whole


def test_reading_ahead_takes_only_what_is_likely() -> None:
    assert expected_use(1, 0.5) == 0.5
    assert expected_use(64, 0.125) > 0.99
    frequent = {BlockKey(1, 0, 2): 0.9, BlockKey(1, 0, 0): 0.6, BlockKey(1, 1, 2): 0.4}
    assert list(ahead_of_layer(Order.HOTTEST_BIT_FIRST, 1, (3, 2), frequent, 1, 0.1)) == [
        BlockKey(1, 0, 2),
        BlockKey(1, 0, 0),
    ]
    assert list(ahead_of_layer(Order.SEQUENTIAL, 1, (3, 2), {}, 1, 0.1)) == []
    assert len(ahead_of_layer(Order.SEQUENTIAL, 1, (3, 2), {}, 64, 0.1)) == 3
