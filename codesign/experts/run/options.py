# SPDX-License-Identifier: Apache-2.0
"""How a store is run, and with how many bits each expert."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.experts.run.compute import Widths
from codesign.experts.run.reader import ReaderOptions
from codesign.experts.run.schedule import Order, Schedule
from codesign.kernels.native import native
from codesign.spec.moe import ExpertFormat, WidthPolicy

OVERHEAD_BYTES = 192 << 20
"""What the process may hold beside the budget and the layers' constants: interpreter, libraries, activations."""


@dataclass(frozen=True)
class RuntimeOptions:
    """How to run. `budget`: bytes for blocks of experts. `pin`: keep the hot set of a trace resident."""

    budget: int
    schedule: Schedule = field(default_factory=lambda: Schedule(Order.HOTTEST_BIT_FIRST, hits_first=True))
    reader: ReaderOptions = field(default_factory=ReaderOptions)
    threads: int = 1
    variant: str | None = None
    pin: bool = True
    policy: WidthPolicy = field(default_factory=WidthPolicy)
    width: int | None = None
    """One width for all pairs of token and expert; else the policy decides (formats with one level have one)."""
    foresight: int = 0
    """Layers whose routing is known before their turn (codesign/experts/run/foresight.py)."""

    def __post_init__(self) -> None:
        if self.foresight and not self.schedule.ahead:
            raise InputError(
                f"foresight must be 0 with {self.schedule.order}, which reads nothing ahead, not {self.foresight};"
                " choose another schedule"
            )

    @property
    def reading(self) -> ReaderOptions:
        """How to read beside so many computing threads: whoever looks for work must not take a processor from them."""
        spare = self.threads < len(os.sched_getaffinity(0))
        return self.reader if spare else replace(self.reader, watch_us=0)


def choose(kind: ExpertFormat, gates: npt.NDArray[np.integer], options: RuntimeOptions) -> Widths:
    """The width of each pair of token and expert [T, E]; 0 where the gate is 0."""
    if options.width is None:
        made: Widths = np.empty(gates.shape, dtype=np.uint8)
        policy, sixteen = options.policy, np.ascontiguousarray(gates, dtype=np.uint16)
        native().choose_widths(sixteen, kind.widths, policy.high, policy.low, made)
        return made
    return ((gates > 0) * options.width).astype(np.uint8)
