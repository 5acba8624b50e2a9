# SPDX-License-Identifier: Apache-2.0
"""When the stream's blocks arrive on chip (docs/machine.md, "The stream"), for the model of `codesign.schedule.timing`.

The readers ask for bursts as far ahead as their FIFOs and the block FIFO have room. The memory serves bursts in the
order of their requests, those that were requested together one port after the other, and writes when no read waits
(first ready, first come, first served; `rtl_tests/machine/dram.cpp`).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from codesign.schedule.design import READER_BEATS, READER_BURSTS, MachineSize
from codesign.schedule.isa import BEAT_BYTES

Times = npt.NDArray[np.int64]

_BURST_LINES = 4096 // BEAT_BYTES
"""Of the longest burst: AXI bursts end at 4 KiB boundaries."""
_BURST_CYCLES = 2
"""From a port's request to its next one."""
_ARRIVE = 6
"""From a block's last line at the ports to its first chance of being popped: two FIFOs and the collector."""


@dataclass(frozen=True)
class Supply:
    """The external memory, in bytes and clock cycles; `codesign.schedule.board.Memory` says what it is."""

    bytes_per_cycle: float
    """Sustained, however many ports ask; a port carries `BEAT_BYTES`."""
    latency: float
    """From a request to its data, from the last beat written to its response."""
    opening: float = 0.0
    """Of a row, before it can be read or written."""
    turnaround: float = 0.0
    """From reading to writing."""
    refresh_interval: float = math.inf
    slice_lines: int = 16
    """After which the memory's ports slice a longer burst."""
    banks: int = 1
    page_bytes: int = 8192
    stripe: int = 0
    """Bytes between the stripes of the memory image: whether the ports' rows share banks depends on it."""


@dataclass
class _Run:
    """Blocks that follow each other in memory, asked for at once."""

    line: int
    lines: int
    """Still to be asked for."""
    at: int
    """When they may be."""
    ones: bool
    """A block of ones follows, which does not come from memory."""


@dataclass
class Stream:
    """The blocks in Program order: when each can be popped, and when it was."""

    size: MachineSize
    supply: Supply
    pops: list[int] = field(default_factory=list)
    _ready: list[int] = field(default_factory=list)
    """Cycle from which each block can be popped."""
    _runs: deque[_Run] = field(default_factory=deque)
    _ends: deque[int] = field(default_factory=lambda: deque([0] * READER_BURSTS, maxlen=READER_BURSTS))
    """Last arrivals of the latest bursts."""
    _asked: int = 0
    """The latest burst's request."""
    _arrived: int = 0
    """The latest line at the ports."""
    _part: int = 0
    """Lines of a block that is not complete."""
    _busy: float = 0.0
    """Until when the memory transfers,"""
    _bank_busy: list[float] = field(default_factory=list)
    """and each bank,"""
    _pages: list[int] = field(default_factory=list)
    """and which page is open there."""

    def __post_init__(self) -> None:
        self._bank_busy = [0.0] * self.supply.banks
        self._pages = [-1] * self.supply.banks

    @property
    def popped(self) -> int:
        """When the latest block was popped; -1 before the first."""
        return self.pops[-1] if self.pops else -1

    def ask(self, line: int, blocks: int, at: int, ones: bool = False) -> None:
        """The next blocks of the stream lie at a line of their space and may be requested in cycle `at`."""
        self._runs.append(_Run(line, blocks * self.size.block_lines, at, ones))

    def program(self, lines: int, at: int) -> Times:
        """When the lines of the Program, requested in cycle `at`, are at the ports; they come before all blocks."""
        bursts = range(0, lines, _BURST_LINES)
        return np.concatenate([self._burst(n, min(_BURST_LINES, lines - n), at) for n in bursts])

    def pop(self, earliest: int) -> int:
        """Pops the next block; the cycle in which that happens, `earliest` or later."""
        number = len(self.pops)
        while number >= len(self._ready):
            self._extend()
        at = max(earliest, self._ready[number])
        self.pops.append(at)
        return at

    def write(self, at: int, lines: int) -> int:
        """When the last response to a write of so many lines is here, the last of which is at the memory in cycle `at`.

        Nothing is popped meanwhile. Reads go first, because they need no turnaround: until the next refresh, which may
        come at any time. Slices of the ports' bursts are written as their data come, a beat a cycle.
        """
        supply, ports, step = self.supply, self.size.ports, self.supply.slice_lines
        begin = at - (lines - 1) // step * step * ports
        while self._may_ask() < max(begin, self._busy) and self._busy < begin + supply.refresh_interval:
            self._extend()
        reads = min(max(0.0, self._busy - begin), supply.refresh_interval)
        busy = begin + reads - reads**2 / (2 * supply.refresh_interval) + max(supply.turnaround, supply.opening)
        for end in range(step, lines + step, step):
            count = min(step, lines + step - end)
            here = at - max(0, lines - end) * ports
            busy = max(busy, float(here)) + count * ports * BEAT_BYTES / supply.bytes_per_cycle
        return int(busy + supply.latency)

    def _may_ask(self) -> float:
        """When the next burst of blocks can be requested; never, as long as there is no room for it."""
        if not self._runs:
            return np.inf
        run, lines = self._runs[0], self.size.block_lines
        block = len(self._ready) + (self._part + self._count(run)) // lines
        room = block - self.size.fifo_blocks - READER_BEATS // lines
        if room > len(self.pops):
            return np.inf
        return max(run.at, self.pops[room - 1] if room > 0 else 0)

    def _count(self, run: _Run) -> int:
        """Lines of the next burst."""
        return min(_BURST_LINES - run.line % _BURST_LINES, run.lines)

    def _extend(self) -> None:
        """The next burst of blocks."""
        run, lines = self._runs[0], self.size.block_lines
        count = self._count(run)
        arrivals = self._burst(run.line, count, int(self._may_ask()))
        ends = arrivals[np.arange(lines - 1 - self._part, count, lines)] + _ARRIVE
        self._ready += ends.tolist()
        self._part = (self._part + count) % lines
        run.line += count
        run.lines -= count
        if not run.lines:
            self._runs.popleft()
            if run.ones:
                self._ready.append(self._ready[-1] + 1)

    def _burst(self, line: int, lines: int, at: int) -> Times:
        """When the lines of one burst on every port, requested at `at` or later, are at the ports."""
        self._asked = max(self._asked + _BURST_CYCLES, at, self._ends[0] + 1)
        beat = BEAT_BYTES / self.supply.bytes_per_cycle
        begin, ports = 0.0, list(range(self.size.ports))
        while ports:  # the one that can begin first
            port = min(ports, key=lambda p: self._begin(p * self.supply.stripe + line * BEAT_BYTES))
            ports.remove(port)
            begin = self._open(port * self.supply.stripe + line * BEAT_BYTES, lines * beat)
        first, steps = begin + self.supply.latency, np.arange(lines)  # of the port that is served last
        arrivals = np.maximum(max(first, self._arrived + 1) + steps, first + steps * beat)
        self._arrived = int(np.ceil(arrivals[-1]))
        self._ends.append(self._arrived)
        whole: Times = np.ceil(arrivals).astype(np.int64)
        return whole

    def _begin(self, addr: int) -> float:
        """When the transfer of one port's burst can begin: a row is opened while others transfer."""
        page, asked = addr // self.supply.page_bytes, float(self._asked + 1)
        bank = page % self.supply.banks
        opened = 0.0 if self._pages[bank] == page else max(asked, self._bank_busy[bank]) + self.supply.opening
        return max(self._busy, asked, opened)

    def _open(self, addr: int, cycles: float) -> float:
        """When it begins, if it takes so many cycles."""
        begin = self._begin(addr)
        page = addr // self.supply.page_bytes
        bank = page % self.supply.banks
        self._pages[bank] = page
        self._busy = self._bank_busy[bank] = begin + cycles
        return begin
