# SPDX-License-Identifier: Apache-2.0
"""In which order the blocks of a layer are read and computed, and which are worth reading before they are asked for.

What a schedule decides step by step is in kernels/src/mixture_schedule.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from codesign.experts.run.arena import BlockKey
from codesign.kernels.native import native


class Order(StrEnum):
    """Order of the blocks of a layer."""

    ON_DEMAND = "on-demand"
    """Expert after expert; each is read when its turn comes, and computed then. The baseline."""
    SEQUENTIAL = "sequential"
    """As in the file: by level, then by expert; read as far ahead as the arena allows."""
    HOTTEST_BIT_FIRST = "hottest-bit-first"
    """D2MoE's HEBF (arXiv 2504.15299): of every expert's next level, the one with most tokens goes first."""

    @property
    def native(self) -> Any:
        """The member of the native module's enumeration."""
        return getattr(native().Order, self.name)


@dataclass(frozen=True)
class Schedule:
    """An order, and whether what is already here is computed before what is still read (COMET, arXiv 2502.19811).

    With `hits_first`, when the reader has no room, an expert that gives its slots back goes before other hits.
    """

    order: Order
    hits_first: bool = False

    @property
    def ahead(self) -> bool:
        """Whether blocks are read before their turn."""
        return self.order is not Order.ON_DEMAND

    def __str__(self) -> str:
        return f"{self.order.value}{' + hits first' if self.hits_first else ''}"


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
