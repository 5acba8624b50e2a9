# SPDX-License-Identifier: Apache-2.0
"""The native residency and schedule of a layer, by keys, for their tests."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from codesign.experts.run.arena import HALF_LIFE, ArenaPlan, BlockKey, BlockNumbers, make_residency
from codesign.experts.run.schedule import Schedule
from codesign.kernels.native import native

Demand = dict[tuple[int, int], int]
"""(expert, level) to the number of tokens that read it."""


class Residency:
    """The native one, by keys."""

    def __init__(
        self,
        plan: ArenaPlan,
        sizes: dict[BlockKey, int],
        counts: Mapping[BlockKey, float] = MappingProxyType({}),
        half_life: float = HALF_LIFE,
    ) -> None:
        self.numbers = BlockNumbers.make(sizes)
        self.native = make_residency(plan, sizes, self.numbers, counts, half_life)

    def size(self, key: BlockKey) -> int:
        return self.native.size(self.numbers.of[key])

    def place(self, key: BlockKey) -> int:
        return self.native.place(self.numbers.of[key])

    def resident(self, key: BlockKey) -> bool:
        return self.native.resident(self.numbers.of[key])

    def loading(self, key: BlockKey) -> bool:
        return self.native.loading(self.numbers.of[key])

    def load(self, key: BlockKey) -> None:
        """Read ahead of any layer."""
        assert self.native.begin_load(self.numbers.of[key]) >= 0
        self.native.end_load(self.numbers.of[key])


class LayerRun:
    """The native one, by keys; steps are (expert, level)."""

    def __init__(self, residency: Residency, layer: int, demand: Demand, schedule: Schedule) -> None:
        numbers = self._numbers = residency.numbers
        asked = [native().Demand(e, v, numbers.of[BlockKey(layer, v, e)], n) for (e, v), n in demand.items()]
        self._demand = {(one.expert, one.level): one for one in asked}
        self.native = native().LayerRun(residency.native, asked, schedule.order.native, schedule.hits_first)

    @property
    def done(self) -> bool:
        return self.native.done

    def next_load(self) -> tuple[BlockKey, int] | None:
        load = self.native.next_load()
        return None if load is None else (self._numbers.keys[load[0]], load[1])

    def arrived(self, key: BlockKey) -> None:
        self.native.arrived(self._numbers.of[key])

    def begun(self, key: BlockKey) -> None:
        self.native.begun(self._numbers.of[key])

    def next_step(self) -> tuple[int, int] | None:
        step = self.native.next_step()
        return None if step is None else (step.expert, step.level)

    def next_begun(self) -> tuple[int, int] | None:
        step = self.native.next_begun()
        return None if step is None else (step.expert, step.level)

    def also_ready(self, step: tuple[int, int]) -> int:
        return self.native.also_ready(self._demand[step])

    def computed(self, step: tuple[int, int]) -> None:
        self.native.computed(self._demand[step])
