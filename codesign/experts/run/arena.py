# SPDX-License-Identifier: Apache-2.0
"""How the bounded arena is divided: pinned blocks have places for good, the others share slots of their size.

Slots of one size never fragment, and a slot is found at once. Of the blocks that nobody claims the one of the fewest
uses gives way, where old uses count less; a pinned block never does (it is chosen by counts of a recorded trace, so
that nothing can flush it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from codesign.errors import InputError
from codesign.kernels.native import native

HALF_LIFE = 4.0
"""Passes of a layer after which a use of a block counts half (docs/decisions/2026-11-23-what-gives-way.md)."""


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
    end: int
    """Bytes that are used."""


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
    pin: float,
) -> ArenaPlan:
    """Divide `budget` bytes for blocks of the given (whole-page) sizes.

    `counts`: how often a trace used each block (empty when there is none): decides what is pinned and how many slots
    each size gets. `pin`: with counts, the share of the budget in which what is used most is pinned (at least one
    expert's blocks are left to the stream); where all blocks fit and it is not 0, all are.
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
        all_fit = sum(sizes.values()) <= budget
        room = budget if all_fit else min(int(budget * pin), budget - least)
        for key in sorted(sizes, key=lambda k: (-counts.get(k, 0.0), k)):
            if (all_fit or counts.get(key, 0.0) > 0) and place + sizes[key] <= room:
                pinned[key] = place
                place += sizes[key]
    left = {key: size for key, size in sizes.items() if key not in pinned}
    classes = _divide(budget - place, place, need, left, counts) if left else ()
    return ArenaPlan(budget, pinned, classes, place + sum(one.size * one.count for one in classes))


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


@dataclass(frozen=True)
class BlockNumbers:
    """What the native module calls blocks: their place in the order of layer, level and expert."""

    keys: tuple[BlockKey, ...]
    of: Mapping[BlockKey, int]

    @staticmethod
    def make(keys: Iterable[BlockKey]) -> BlockNumbers:
        """Number the blocks of a store."""
        ordered = tuple(sorted(keys))
        return BlockNumbers(ordered, {key: number for number, key in enumerate(ordered)})


def make_residency(
    plan: ArenaPlan,
    sizes: Mapping[BlockKey, int],
    numbers: BlockNumbers,
    counts: Mapping[BlockKey, float] = MappingProxyType({}),
    half_life: float = HALF_LIFE,
) -> Any:
    """Which block is where, claimed, loading, or free to give way: kernels/src/mixture_residency.cpp.

    `counts`: how often a pass is taken to have used each block so far. `half_life`: passes of a layer after which a use
    counts half; 0: the least recently used block gives way.
    """
    slots = [(one.size, one.count, one.place) for one in plan.classes]
    passes = 1 / (1 - 0.5 ** (1 / half_life)) if half_life else 0.0
    blocks = [(key.layer, sizes[key], plan.pinned.get(key, -1), counts.get(key, 0.0) * passes) for key in numbers.keys]
    return native().Residency(slots, blocks, half_life)
