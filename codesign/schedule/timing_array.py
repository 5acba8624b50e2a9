# SPDX-License-Identifier: Apache-2.0
"""The unified unit, tile by tile (rtl/unified_unit.sv), for the model of `codesign.schedule.timing`.

The loader pops blocks into a small buffer, from which a tile's planes go to the shadow as soon as the array has taken
the tile before; K and V load into the shadow itself. The issuer makes a slot a cycle of every tile that is complete.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from codesign.schedule.design import MIN_SLOTS, MachineSize
from codesign.schedule.timing_stream import Stream, Times

_TAKE = 6
"""From a tile's first slot to the array taking it from the shadow, which is free then."""
_READ = 3
"""From a slot to its row of x being read."""
_RESULT = 39
"""From a slot to its result being written, beside the levels of the adder tree (`OutStage`)."""
_BUFFER = 15
"""Blocks between the FIFO and the shadow."""
_BUFFERED = 4
"""From a pop to the block's first chance of going on."""
_PASSES = 7
"""Accepted and not complete."""
_PLACED = 3
"""From a pass' acceptance to the loader taking it, beside the cycles in which a head's words are counted,"""
_SLOTS = 13
"""and to its first slot."""
_KEYS_DRAIN = 4
"""From the last key of a pass to the loader taking the next one."""


@dataclass(frozen=True)
class Pass:
    """A dense pass."""

    rows: int
    n_tiles: int
    k_words: int
    planes: int
    share: float = 1.0
    """Of the multipliers."""
    load: int = 0
    """Cycles that loading a tile takes at least."""


@dataclass
class Array:
    """What the unit has done so far, in cycles of the run."""

    size: MachineSize
    stream: Stream
    slot: int = 0
    """The first one that is free."""
    rows: Times = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """When each row of the latest result can be read."""
    begun: int = 0
    """First slot of the latest tile."""
    seen: int = 0
    """Last slot of the latest pass' first tile: it has read all its rows."""
    compute: int = 0
    memory: int = 0
    stall: int = 0
    _last: Times = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Slots of the latest tile's rows."""
    _reads: tuple[int, int] = (0, 0)
    """First cycle, and the one after the last, in which the latest tile reads x in ACT, if it is one of keys;"""
    _writes: tuple[int, int] = (0, 0)
    """and in which the latest head's results are written there."""
    _used: int = 0
    """When the latest block went from the buffer to the shadow or the records."""
    _buffer: deque[int] = field(default_factory=lambda: deque([0] * _BUFFER, maxlen=_BUFFER))
    """The same of the latest blocks."""
    _free: int = 0
    """When the loader can take the next pass."""
    _accepted: int = 0
    """When the next pass can be accepted, but for those under way:"""
    _landed: deque[int] = field(default_factory=lambda: deque([0] * _PASSES, maxlen=_PASSES))
    """when the latest ones are complete."""

    @property
    def result(self) -> int:
        """Cycles from a slot to its result being written."""
        return _RESULT + (self.size.simd // 8 - 1).bit_length()

    @property
    def landed(self) -> int:
        """When the latest pass is complete."""
        return self._landed[-1]

    def accept(self, at: int, words: int = 0) -> int:
        """Accepts a pass, `at` or later; `words`: of a head, which are counted first."""
        accepted = max(at, self._accepted, self._landed[0] + 1)
        self._accepted = accepted + 2 + words
        return accepted

    def dense(self, p: Pass, accepted: int, rows: Times | None) -> None:
        """A pass over the stream's weights. `rows`: when each of its rows can be read, if not at once."""
        steps, work = _steps(p.rows, p.share)
        records = self.size.record_blocks
        free = max(self._free, accepted + _PLACED) + 1
        for tile in range(p.n_tiles * p.k_words):
            brings = records if tile % p.k_words == 0 else 0
            loaded, late = self._load(brings, p.planes, free)
            begin = max(loaded + 1, self.stream.pops[-brings - p.planes] + p.load, self.begun + p.load)
            if brings:
                begin = max(begin, self.begun + MIN_SLOTS + records)
            if tile == 0:
                begin = max(begin, accepted + _SLOTS)
            self._issue(begin, steps, work, late, tile == 0, rows)
        self._free = loaded
        self._land()

    def keys(self, rows: int, tiles: int, keys: int, words: int, accepted: int, share: float, wait: bool) -> None:
        """A pass over tiles of K (scores) or V (weighted sum); `wait`: for the scores of each row."""
        steps, work = _steps(rows, share)
        begin = max(self._free, accepted + _PLACED + words) + 2
        ready = self.rows if wait else None
        for tile in range(tiles):
            first_key = max(begin, self.begun + 2)
            loaded = first_key + keys + self._refused(first_key, keys)
            first = max(loaded, accepted + _SLOTS + words) if tile == 0 else loaded
            self._issue(first, steps, work, 0, tile == 0, ready)
            self._reads = (0, 0) if wait else (self.begun + _READ, self.slot + _READ)
        self._free = loaded - 1 + _KEYS_DRAIN
        self._land()
        if wait:
            self._writes = (self.begun + self.result, int(self._last[-1]) + self.result + 1)

    def drop(self, blocks: int, accepted: int) -> None:
        """Pops the blocks of an expert that has no tokens."""
        at = max(self._free, accepted + _PLACED)
        for _ in range(blocks):
            at = self.stream.pop(at + 1)
        self._free = at
        self.slot = max(self.slot, at + 1, accepted + _SLOTS) + 1
        self._landed.append(self.slot - 1 + self.result)

    def passes_over(self, cycles: int) -> None:
        """Everything waits for a pass over the latest result that takes so many cycles."""
        self.slot = max(self.slot, int(self.rows[-1])) + cycles
        self.rows = np.full(len(self.rows), self.slot, dtype=np.int64)

    def _refused(self, begin: int, keys: int) -> int:
        """Cycles in which ACT has no port for keys: results are written while scores are computed."""
        first, end = max(self._reads[0], self._writes[0], begin), min(self._reads[1], self._writes[1])
        return max(0, end - first) if first < begin + keys else 0

    def _load(self, records: int, planes: int, earliest: int) -> tuple[int, int]:
        """Pops a tile's blocks: the cycle of the last pop, and for how many cycles they were not there."""
        late, at = 0, max(earliest, self.stream.popped + 1)
        for block in range(records + planes):
            wanted = max(at, self._buffer[0] + 1)
            at = self.stream.pop(wanted)
            late += at - wanted
            self._used = max(self._used + 1, at + _BUFFERED)
            if block == records:
                self._used = max(self._used, self.begun + _TAKE)
            self._buffer.append(self._used)
            at += 1
        return at - 1, late

    def _issue(self, earliest: int, steps: Times, work: int, late: int, first: bool, rows: Times | None) -> None:
        """The slots of a tile, for rows that are `steps` apart."""
        begin = max(self.slot, earliest)
        memory = min(begin - self.slot, late)
        self.memory += memory
        length = max(work, MIN_SLOTS)
        self.compute += work
        self.stall += length - work + (0 if first else begin - self.slot - memory)
        slots = begin + steps
        if first and rows is not None:
            slots = np.maximum.accumulate(np.maximum(rows, begin) - steps) + steps
        self.begun = int(slots[0])
        self.slot = int(slots[-1] - steps[-1]) + length
        if first:
            self.seen = self.slot - 1
        self._last = slots

    def _land(self) -> None:
        self.rows = self._last + self.result + 1
        self._landed.append(self.slot - 1 + self.result)


def _steps(rows: int, share: float) -> tuple[Times, int]:
    """Distance of each row's slot from the first one, and slots of all."""
    return (np.arange(rows) / share).astype(np.int64), ceil(rows / share)
