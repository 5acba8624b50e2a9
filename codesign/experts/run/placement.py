# SPDX-License-Identifier: Apache-2.0
"""A store's blocks under a budget: where each may lie, and which of them tokens read, or are likely to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from codesign.errors import InputError
from codesign.experts.file.store import Store
from codesign.experts.run.arena import HALF_LIFE, ArenaPlan, BlockKey, BlockNumbers, make_residency, plan_arena
from codesign.experts.run.compute import Gates
from codesign.experts.run.options import RuntimeOptions, choose
from codesign.experts.run.routing import RoutingTrace
from codesign.experts.run.schedule import ahead_of_layer
from codesign.kernels.native import native
from codesign.spec.moe import ExpertFormat, MoeLayer


def block_tokens(kind: ExpertFormat, layer: int, gates: Gates, options: RuntimeOptions) -> dict[BlockKey, int]:
    """How many of the tokens with these gates [T, E] read each block of a layer; none that no token reads."""
    widths = choose(kind, gates, options)
    return {
        BlockKey(layer, level, expert): tokens
        for level, width in enumerate(kind.widths)
        for expert, tokens in enumerate((widths >= width).sum(axis=0).tolist())
        if tokens
    }


def block_counts(store: Store, trace: RoutingTrace, options: RuntimeOptions) -> dict[BlockKey, float]:
    """How often a token reads each block, on average over a trace. Raises InputError when the trace does not fit."""
    check_trace(store, trace)
    counts: dict[BlockKey, float] = {}
    tokens = max(1, sum(trace.batches))
    for layer in range(len(store.layers)):
        for batch in range(len(trace.batches)):
            for key, uses in block_tokens(store.kind, layer, trace.dense_gates(batch, layer), options).items():
                counts[key] = counts.get(key, 0.0) + uses / tokens
    return counts


def check_trace(store: Store, trace: RoutingTrace) -> None:
    """Raise InputError when a trace is not one of a model of the store's shape."""
    for layer in store.layers:
        if layer.num_experts != trace.num_experts:
            raise InputError(
                f"trace must have the {layer.num_experts} experts of the store's layer {layer.name}, not"
                f" {trace.num_experts}; record one with this model"
            )
    if trace.layers != len(store.layers):
        raise InputError(
            f"trace must have the store's {len(store.layers)} layers, not {trace.layers}; record one with this model"
        )


@dataclass(frozen=True)
class Placement:
    """What a runtime begins with, on a processor or a GPU.

    `kind`: of the blocks in the arena. `counts`: how often a token of the trace that decides the hot set reads each
    block; empty without one.
    """

    kind: ExpertFormat
    layers: tuple[MoeLayer, ...]
    options: RuntimeOptions
    sizes: Mapping[BlockKey, int]
    counts: Mapping[BlockKey, float]
    plan: ArenaPlan
    numbers: BlockNumbers

    @staticmethod
    def make(
        store: Store,
        kind: ExpertFormat,
        sizes: Mapping[BlockKey, int],
        options: RuntimeOptions,
        hot: RoutingTrace | None,
    ) -> Placement:
        """Divide the budget for blocks of these (whole-page) sizes; what `hot` uses most is pinned.

        Raises InputError when the format has not the width, the trace does not fit, or the budget is too small.
        """
        if options.width is not None:
            kind.level_count(options.width)
        counts = block_counts(store, hot, options) if hot else {}
        plan = plan_arena(options.budget, sizes, counts, options.pin if options.schedule.ahead else 0.0)
        return Placement(kind, store.layers, options, sizes, counts, plan, BlockNumbers.make(sizes))

    @property
    def pinned_bytes(self) -> int:
        """Bytes of the hot set."""
        return sum(self.sizes[key] for key in self.plan.pinned)

    def residency(self) -> Any:
        """Which block is where, from now on."""
        half_life = HALF_LIFE if self.options.schedule.ahead else 0.0
        return make_residency(self.plan, self.sizes, self.numbers, self.counts, half_life)

    @property
    def warmed(self) -> list[BlockKey]:
        """What is here before the first layer: all that is pinned, and what else the trace uses most, hottest last."""
        room = {one.size: one.count for one in self.plan.classes}
        others = []
        for key in sorted(self.counts.keys() - self.plan.pinned.keys(), key=lambda k: (-self.counts[k], k)):
            if room[self.sizes[key]]:
                room[self.sizes[key]] -= 1
                others.append(key)
        return [*sorted(self.plan.pinned), *reversed(others)]

    def named(self, layer: int, gates: Gates) -> list[int]:
        """The blocks that tokens with these gates [T, E] read of a layer, in the schedule's order."""
        asked = [
            native().Demand(key.expert, key.level, self.numbers.of[key], tokens)
            for key, tokens in block_tokens(self.kind, layer, gates, self.options).items()
        ]
        return [one.block for one in native().in_order(self.options.schedule.order.native, asked)]

    def likely(self, layer: int, tokens: int) -> list[int]:
        """The blocks of a layer that so many tokens more likely read than not, before their routing is known."""
        schedule, shape = self.options.schedule, self.layers[layer]
        if not schedule.ahead:
            return []
        each, share = (shape.num_experts, len(self.kind.levels)), shape.top_k / shape.num_experts
        keys = ahead_of_layer(schedule.order, layer, each, self.counts, tokens, share)
        return [self.numbers.of[key] for key in keys]
