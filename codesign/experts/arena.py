# SPDX-License-Identifier: Apache-2.0
"""Where blocks lie in the bounded arena: pinned ones for good, the others in slots of their size. Bookkeeping only.

Slots of one size never fragment, and a slot is found at once. The least recently used block that nobody claims gives
way; a pinned block never does (it is chosen by counts of a recorded trace, so that a scan cannot flush it).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from codesign.errors import InputError


class BlockKey(NamedTuple):
    """One level of one expert of one layer, each counted from 0."""

    layer: int
    level: int
    expert: int


@dataclass(frozen=True)
class SlotClass:
    """`count` slots of `size` bytes, one after the other from `place` on."""

    size: int
    count: int
    place: int


@dataclass(frozen=True)
class ArenaPlan:
    """How a budget is divided: pinned blocks with their places, then slots by size."""

    budget: int
    pinned: Mapping[BlockKey, int]
    classes: tuple[SlotClass, ...]

    @property
    def end(self) -> int:
        """Bytes that are used."""
        last = self.classes[-1]
        return last.place + last.size * last.count


def working_set(experts: Iterable[Sequence[int]]) -> dict[int, int]:
    """How many slots of each size (ascending) hold any one expert, given the sizes of each expert's blocks."""
    need: dict[int, int] = {}
    for sizes in experts:
        for size in set(sizes):
            need[size] = max(need.get(size, 0), sizes.count(size))
    return dict(sorted(need.items()))


def plan_arena(
    budget: int,
    sizes: Mapping[BlockKey, int],
    counts: Mapping[BlockKey, float],
    pin: bool,
    stream_experts: int = 8,
) -> ArenaPlan:
    """Divide `budget` bytes for blocks of the given (whole-page) sizes.

    `counts`: how often a trace used each block (empty when there is none): decides what is pinned and how many slots
    each size gets. With `pin`, what is used most is pinned, and room for `stream_experts` experts (a quarter of the
    budget at most) stays for the stream.
    Raises InputError when not even one expert fits, with the number that is needed.
    """
    experts: dict[tuple[int, int], list[int]] = {}
    for key, size in sizes.items():
        experts.setdefault((key.layer, key.expert), []).append(size)
    need = working_set(experts.values())
    least = sum(size * count for size, count in need.items())
    if budget < least:
        raise InputError(
            f"budget must be at least {least} bytes, the largest expert's blocks, not {budget}; raise the budget"
        )
    pinned: dict[BlockKey, int] = {}
    place = 0
    if pin and counts:
        room = budget - max(least, min(least * stream_experts, budget // 4))
        for key in sorted(sizes, key=lambda k: (-counts.get(k, 0.0), k)):
            if counts.get(key, 0.0) > 0 and place + sizes[key] <= room:
                pinned[key] = place
                place += sizes[key]
    left = {key: size for key, size in sizes.items() if key not in pinned}
    return ArenaPlan(budget, pinned, _divide(budget - place, place, need, left, counts))


def _divide(
    room: int, place: int, need: Mapping[int, int], sizes: Mapping[BlockKey, int], counts: Mapping[BlockKey, float]
) -> tuple[SlotClass, ...]:
    """Slots for what streams: first one expert's, the rest by the bytes that are asked for of each size."""
    wanted = dict.fromkeys(need, 1e-09)
    blocks = dict.fromkeys(need, 0)
    for key, size in sizes.items():
        wanted[size] += size * (counts.get(key, 0.0) if counts else 1.0)
        blocks[size] += 1
    slots = dict(need)
    spare = room - sum(size * count for size, count in need.items())
    for size in sorted(need, reverse=True):  # large ones first: small ones take what rounding leaves
        share = wanted[size] / sum(wanted[other] for other in need if other <= size)
        more = min(int(spare * share) // size, max(0, blocks[size] - slots[size]))
        slots[size] += more
        spare -= more * size
    for size in sorted(need, reverse=True):  # what a size could not use goes to the others
        more = min(spare // size, max(0, blocks[size] - slots[size]))
        slots[size] += more
        spare -= more * size
    classes = []
    for size, count in slots.items():
        classes.append(SlotClass(size, count, place))
        place += size * count
    return tuple(classes)


class Residency:
    """Which block is where, which are claimed (in use: they stay), loading, or free to give way."""

    def __init__(self, plan: ArenaPlan, sizes: Mapping[BlockKey, int]) -> None:
        self._sizes = sizes
        self._pinned = dict(plan.pinned)
        self._loaded_pins: set[BlockKey] = set()
        self._free = {c.size: [c.place + i * c.size for i in reversed(range(c.count))] for c in plan.classes}
        self._slots: dict[BlockKey, int] = {}
        self._loading: set[BlockKey] = set()
        self._claimed: set[BlockKey] = set()
        self._ahead = {c.size: 0 for c in plan.classes}  # being read, and not claimed
        self._idle: dict[int, OrderedDict[BlockKey, None]] = {c.size: OrderedDict() for c in plan.classes}

    def size(self, key: BlockKey) -> int:
        """Bytes of a block's slot."""
        return self._sizes[key]

    def pinned(self, key: BlockKey) -> bool:
        """Whether the block has a place of its own."""
        return key in self._pinned

    def place(self, key: BlockKey) -> int:
        """Where in the arena a block lies or will lie."""
        place = self._pinned.get(key)
        return self._slots[key] if place is None else place

    def resident(self, key: BlockKey) -> bool:
        """Whether its bytes are there."""
        return key in self._loaded_pins or (key in self._slots and key not in self._loading)

    def loading(self, key: BlockKey) -> bool:
        """Whether it is being read."""
        return key in self._loading

    def available(self, size: int) -> int:
        """Slots of that size that are free or can be freed (speculative reads in flight count: they end)."""
        return len(self._free[size]) + len(self._idle[size]) + self._ahead[size]

    def begin_load(self, key: BlockKey, keep: Container[int] = ()) -> int | None:
        """A place to read the block to, or None when every slot is in use; blocks of the layers in `keep` stay."""
        place = self._pinned.get(key)
        if place is None:
            size = self._sizes[key]
            place = self._free[size].pop() if self._free[size] else self._evict(size, keep)
            if place is None:
                return None
            self._slots[key] = place
            self._ahead[size] += 1
        self._loading.add(key)
        return place

    def _evict(self, size: int, keep: Container[int]) -> int | None:
        victim = next((key for key in self._idle[size] if key.layer not in keep), None)
        if victim is None:
            return None
        del self._idle[size][victim]
        return self._slots.pop(victim)

    def end_load(self, key: BlockKey) -> None:
        """It has arrived."""
        self._loading.discard(key)
        if key in self._pinned:
            self._loaded_pins.add(key)
        elif key not in self._claimed:
            self._ahead[self._sizes[key]] -= 1
            self._idle[self._sizes[key]][key] = None

    def drop(self, key: BlockKey) -> None:
        """It did not arrive: its slot is free again."""
        self._loading.discard(key)
        if key not in self._pinned:
            self._ahead[self._sizes[key]] -= key not in self._claimed
            self._claimed.discard(key)
            self._free[self._sizes[key]].append(self._slots.pop(key))

    def claim(self, key: BlockKey) -> None:
        """It stays until it is released; resident or loading."""
        if key in self._pinned:
            return
        self._claimed.add(key)
        self._idle[self._sizes[key]].pop(key, None)
        self._ahead[self._sizes[key]] -= key in self._loading

    def release(self, key: BlockKey) -> None:
        """It was just used, and may give way."""
        if key in self._claimed:
            self._claimed.remove(key)
            if key not in self._loading:
                self._idle[self._sizes[key]][key] = None

    def touch(self, key: BlockKey) -> None:
        """It will be used soon."""
        if key not in self._pinned and key in self._idle[self._sizes[key]]:
            self._idle[self._sizes[key]].move_to_end(key)
