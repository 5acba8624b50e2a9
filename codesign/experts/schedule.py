# SPDX-License-Identifier: Apache-2.0
"""In which order the blocks of a layer are read and computed, and which of them may be in the arena at a time.

Pure logic: `LayerRun` is told what has arrived and what was computed, and says what to read and what to compute next.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from codesign.experts.arena import BlockKey, Residency

Demand = Mapping[tuple[int, int], int]
"""(expert, level) to the number of tokens that read it. A level's tokens also read every level below it."""


class Order(StrEnum):
    """Order of the blocks of a layer."""

    ON_DEMAND = "on-demand"
    """Expert after expert; each is read when its turn comes, and computed then. The baseline."""
    SEQUENTIAL = "sequential"
    """As in the file: by level, then by expert; read as far ahead as the arena allows."""
    HOTTEST_BIT_FIRST = "hottest-bit-first"
    """D2MoE's HEBF (arXiv 2504.15299): of every expert's next level, the one with most tokens goes first."""


@dataclass(frozen=True)
class Schedule:
    """An order, and whether what is already here is computed before what is still read (COMET, arXiv 2502.19811)."""

    order: Order
    hits_first: bool = False

    @property
    def ahead(self) -> bool:
        """Whether blocks are read before their turn."""
        return self.order is not Order.ON_DEMAND

    def __str__(self) -> str:
        return f"{self.order.value}{' + hits first' if self.hits_first else ''}"


Step = tuple[int, int]
"""(expert, level): the multiplication of one block with the tokens that read it."""


def steps(order: Order, demand: Demand) -> list[Step]:
    """The blocks of a layer that any token reads, in their order."""
    wanted = {step: tokens for step, tokens in demand.items() if tokens > 0}
    if order is Order.ON_DEMAND:
        return sorted(wanted)
    if order is Order.SEQUENTIAL:
        return sorted(wanted, key=lambda step: (step[1], step[0]))
    return list(_hottest_first(wanted))


def _hottest_first(wanted: Demand) -> Iterator[Step]:
    heads = [(-tokens, expert, level) for (expert, level), tokens in wanted.items() if level == 0]
    heapq.heapify(heads)
    while heads:
        _, expert, level = heapq.heappop(heads)
        yield expert, level
        tokens = wanted.get((expert, level + 1), 0)
        if tokens:
            heapq.heappush(heads, (-tokens, expert, level + 1))


class LayerRun:
    """One layer's pass: reads and computations, so that every block of an expert stays until the expert is complete.

    It never deadlocks: a block is only admitted when all experts that have begun can still be completed with the slots
    that there are (Dijkstra's banker, with experts as processes and slots as money).
    """

    def __init__(self, residency: Residency, layer: int, demand: Demand, schedule: Schedule) -> None:
        self._at = residency
        self._layer = layer
        self._ahead, self._eager = schedule.ahead, schedule.hits_first
        order = steps(schedule.order, demand)
        self._levels: dict[int, int] = {}
        for expert, _ in order:
            self._levels[expert] = self._levels.get(expert, 0) + 1
        if not self._ahead and self._eager:  # on demand, whole experts that are here go first
            here = {e for e in self._levels if all(residency.resident(self._key((e, v))) for v in self._of(e))}
            order.sort(key=lambda step: step[0] not in here)
        self._open = order
        self._need = {expert: self._needed(expert) for expert in self._levels}
        self._held: dict[int, dict[int, int]] = {}  # slots by size of experts that have begun
        self._lack = {size: 0 for need in self._need.values() for size in need}  # what all of those still need
        self._waiting = dict.fromkeys(order)
        self._ready: set[Step] = set()
        self._computed: dict[int, int] = {}
        self.hits = 0
        self.hit_bytes = 0
        for step in reversed(order):
            residency.touch(self._key(step))
        if self._ahead:
            for step in order:
                if residency.resident(self._key(step)) and self._safe(step):
                    self._admit(step)

    def _key(self, step: Step) -> BlockKey:
        return BlockKey(self._layer, step[1], step[0])

    def _of(self, expert: int) -> range:
        return range(self._levels[expert])

    def _needed(self, expert: int) -> dict[int, int]:
        need: dict[int, int] = {}
        for level in self._of(expert):
            key = self._key((expert, level))
            if not self._at.pinned(key):
                need[self._at.size(key)] = need.get(self._at.size(key), 0) + 1
        return need

    @property
    def done(self) -> bool:
        """Whether every block was computed."""
        return not self._open

    @property
    def all_asked_for(self) -> bool:
        """Whether nothing of this layer is left to be read."""
        return not self._waiting

    # -- reading ------------------------------------------------------------------------------------------------------

    def next_load(self) -> tuple[BlockKey, int] | None:
        """A block to read now and its place in the arena, or None. It is expected to arrive: see `arrived`."""
        looking = True
        while looking:
            looking = False
            for step in self._candidates():
                key = self._key(step)
                if not self._safe(step):
                    continue
                if self._at.resident(key) or self._at.loading(key):  # spared by luck, or read ahead of this layer
                    self._admit(step)
                    looking = True
                    break
                place = self._at.begin_load(key)
                if place is not None:
                    self._take(step)
                    return key, place
        return None

    def _candidates(self) -> list[Step]:
        """What may be read now: the first that waits, then what experts that have begun still lack."""
        if not self._waiting:
            return []
        if not self._ahead:
            turn = self._open[0][0]
            return [step for step in self._waiting if step[0] == turn]
        first = next(iter(self._waiting))
        if self._safe(first):
            return [first]
        return [step for step in self._waiting if step[0] in self._held]

    def _admit(self, step: Step) -> None:
        """Claim a block that is here or on its way."""
        key = self._key(step)
        self._take(step)
        if self._at.resident(key):
            self._ready.add(step)
            self.hits += 1
            self.hit_bytes += self._at.size(key)

    def _take(self, step: Step) -> None:
        key = self._key(step)
        self._at.claim(key)
        if not self._at.pinned(key):
            size = self._at.size(key)
            if step[0] not in self._held:
                self._held[step[0]] = {}
                for other, count in self._need[step[0]].items():
                    self._lack[other] += count
            held = self._held[step[0]]
            held[size] = held.get(size, 0) + 1
            self._lack[size] -= 1
        del self._waiting[step]

    def _safe(self, step: Step) -> bool:
        """Whether all experts that have begun could be completed after this block got a slot."""
        key = self._key(step)
        if self._at.pinned(key):
            return True
        size = self._at.size(key)
        free = {other: self._at.available(other) - (other == size) for other in self._lack}
        if free[size] < 0:
            return False
        more = {} if step[0] in self._held else self._need[step[0]]
        if all(n + more.get(s, 0) - (s == size) <= free[s] for s, n in self._lack.items()):
            return True
        return self._can_finish(step[0], size, free)

    def _can_finish(self, expert: int, size: int, free: dict[int, int]) -> bool:
        """The banker's question: is there an order in which they can all be completed?"""
        held = {e: dict(h) for e, h in self._held.items()}
        mine = held.setdefault(expert, {})
        mine[size] = mine.get(size, 0) + 1
        lack = {e: {s: n - h.get(s, 0) for s, n in self._need[e].items()} for e, h in held.items()}
        while lack:
            able = next((e for e, one in lack.items() if all(n <= free[s] for s, n in one.items())), None)
            if able is None:
                return False
            del lack[able]
            for s, n in held[able].items():
                free[s] += n
        return True

    def mine(self, key: BlockKey) -> bool:
        """Whether a block belongs to this layer's experts."""
        return key.layer == self._layer

    def arrived(self, key: BlockKey) -> None:
        """A block of this layer was read."""
        self._at.end_load(key)
        step = key.expert, key.level
        if step not in self._waiting and step in self._open:
            self._ready.add(step)

    # -- computing ----------------------------------------------------------------------------------------------------

    def next_step(self) -> Step | None:
        """A block to compute now, or None when the next ones are still being read."""
        if not self._open:
            return None
        first = self._open[0]
        if not self._ahead:  # the baseline overlaps nothing: all of an expert is here before it begins
            return first if all((first[0], level) in self._ready for level in self._of(first[0])) else None
        if first in self._ready or (not self._eager and first not in self._waiting):
            return first if first in self._ready else None
        return next((s for s in self._open if s in self._ready and self._computed.get(s[0], 0) == s[1]), None)

    def also_ready(self, step: Step) -> int:
        """The last of the levels that follow a step and are here as well: one pass over the tokens serves them all."""
        expert, level = step
        while (expert, level + 1) in self._ready:
            level += 1
        return level

    def computed(self, step: Step) -> None:
        """A block was computed; with an expert's last one all of its blocks may give way."""
        self._open.remove(step)
        self._ready.discard(step)
        expert = step[0]
        self._computed[expert] = self._computed.get(expert, 0) + 1
        if self._computed[expert] == self._levels[expert]:
            for level in self._of(expert):
                self._at.release(self._key((expert, level)))
            self._held.pop(expert, None)


def expected_use(tokens: int, frequency: float) -> float:
    """The probability that any of `tokens` tokens uses what one token uses with that frequency."""
    return 1.0 - (1.0 - min(1.0, frequency)) ** tokens


def ahead_of_layer(
    order: Order, layer: int, shape: tuple[int, int], frequencies: Mapping[BlockKey, float], tokens: int, share: float
) -> Sequence[BlockKey]:
    """Blocks of a layer worth reading before its routing is known: those that are more likely used than not.

    `shape`: experts and levels. `frequencies`: of a trace, per token; without one every expert gets the same `share`
    (top_k / num_experts) and only the lowest level is taken. Never changes a bit: what is read in vain is not computed.
    """
    experts, levels = shape
    keys = [BlockKey(layer, level, expert) for level in range(levels) for expert in range(experts)]

    def chance(key: BlockKey) -> float:
        known = frequencies.get(key, 0.0) if frequencies else (share if key.level == 0 else 0.0)
        return expected_use(tokens, known)

    likely = [key for key in keys if chance(key) >= 0.5]
    if order is Order.HOTTEST_BIT_FIRST:
        likely.sort(key=lambda key: (-chance(key), key.level, key.expert))
    return likely
