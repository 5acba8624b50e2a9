# SPDX-License-Identifier: Apache-2.0
"""When the fetcher asks for each instruction's data (rtl/fetcher.sv), for the model of `codesign.schedule.timing`."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from codesign.schedule.design import MachineSize
from codesign.schedule.isa import PLANES, SLICE_BITS, Instruction, Opcode, Width
from codesign.schedule.timing_stream import Stream

_WALK = 21
"""Cycles to the descriptor of an instruction's data, or over one without data: it is fetched and checked."""
_NEXT = 2
"""From a descriptor to the next instruction,"""
_REQUEST = 8
"""and to its request."""
_FENCE = 2
"""From the completion that a descriptor waits for to the descriptor."""


@dataclass
class Fetcher:
    """Walks the Program ahead of execution, as far as the instructions' fences let it."""

    program: Sequence[Instruction]
    tokens: Sequence[Sequence[int]]
    """Of each expert in every EXPERTS instruction."""
    size: MachineSize
    stream: Stream
    begin: int
    """When it turns to the first instruction."""
    completed: list[int] = field(default_factory=list)
    """When each instruction so far was complete."""
    _waits: float = 0
    """How many instructions must be complete before it goes on."""

    def __post_init__(self) -> None:
        self._steps = self._walk()

    def advance(self) -> None:
        """Asks for all that does not wait for another instruction."""
        while self._waits <= len(self.completed):
            self._waits = next(self._steps, math.inf)

    def _walk(self) -> Iterator[int]:
        """Yields each number of instructions that must be complete."""
        at, tokens = self.begin, iter(self.tokens)
        for i in self.program:
            at += _WALK
            if i.opcode in (Opcode.STORE, Opcode.ATTENTION):
                continue
            if i.opcode is Opcode.EXPERTS:
                at = yield from self._experts(i, next(tokens), at)
            else:
                yield i.fence
                at = self._fenced(i, at)
                self.stream.ask(i.mem_addr, i.blocks, at + _REQUEST)
            at += _NEXT

    def _fenced(self, i: Instruction, at: int) -> int:
        return max(at, self.completed[i.fence - 1] + _FENCE) if i.fence else at

    def _experts(self, i: Instruction, tokens: Sequence[int], at: int) -> Generator[int, None, int]:
        """Walks over the experts, the first `ahead` before their queues are known; returns when that ends."""
        line, stride = i.mem_addr, i.blocks * self.size.block_lines
        for e, count in enumerate(tokens):
            if e == i.ahead:
                yield i.fence
                at = self._fenced(i, at)
            if count or e < i.ahead:
                at = self._expert(i, i.width_of(e), line, at + 1)
            line += stride
            at += 1
        return at

    def _expert(self, i: Instruction, width: Width, line: int, at: int) -> int:
        """Descriptors of one expert: a tile each, if it is sliced."""
        if width is Width.STORED:
            self.stream.ask(line, i.blocks, at + _REQUEST)
            return at
        for n_tiles, k_words in ((i.n_tiles, i.k_words), (i.n_tiles2, i.k_words2)):
            for tile in range(n_tiles * k_words):
                records = self.size.record_blocks if tile % k_words == 0 else 0
                self.stream.ask(line, records + SLICE_BITS[width], at + _REQUEST, ones=True)
                line += (records + PLANES[i.weight_format]) * self.size.block_lines
                at += 1
        return at
