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

TOKENS_PIN, IMAGES_PIN = 0.5, 0.75
"""Shares of the budget to be pinned: where tokens choose few experts each, and where a pass is an image, whose patches
use nearly all of them (docs/decisions/2026-11-23-what-gives-way.md)."""


@dataclass(frozen=True)
class RuntimeOptions:
    """How to run. `budget`: bytes for blocks of experts. `pin`: share of it for the hot set of a trace, 0 for none."""

    budget: int
    schedule: Schedule = field(default_factory=lambda: Schedule(Order.HOTTEST_BIT_FIRST, hits_first=True))
    reader: ReaderOptions = field(default_factory=ReaderOptions)
    threads: int = 1
    variant: str | None = None
    pin: float = TOKENS_PIN
    policy: WidthPolicy = field(default_factory=WidthPolicy)
    width: int | None = None
    """One width for all pairs of token and expert; else the policy decides (formats with one level have one)."""
    foresight: int = 0
    """Layers whose routing is known before their turn (codesign/experts/run/foresight.py)."""

    def __post_init__(self) -> None:
        if not 0 <= self.pin <= 1:
            raise InputError(f"pin must be from 0 to 1, not {self.pin!r}; give the share of the budget to be pinned")
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
