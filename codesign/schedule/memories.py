# SPDX-License-Identifier: Apache-2.0
"""What the machine's memories and multipliers cost in primitives of an UltraScale+ device, and the choice between them.

Widths and depths of the primitives: AMD UG573 (UltraScale memory resources), tables 1-1 and 2-1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from codesign.errors import InputError
from codesign.schedule.board import Board
from codesign.schedule.design import MachineSize, MemoryKind
from codesign.schedule.isa import BEAT_BITS, INSTRUCTION_BITS
from codesign.schedule.stream import ceil_div

_SIMPLE_DUAL_PORT = ((72, 512), (36, 1024), (18, 2048), (9, 4096), (4, 8192), (2, 16384), (1, 32768))
_TRUE_DUAL_PORT = _SIMPLE_DUAL_PORT[1:]
_URAM = (72, 4096)
_FIFO_DEPTHS = (4096, 2048, 1024, 512, 256, 128, 64, 32)
_READER_FIFO_BEATS = 512
_ROUTED_SHARE = 0.9
"""Share of the memory blocks a design may use: beyond, place and route at 300 MHz is not credible."""
_BANK_LANES = 16
_LANE_DSP, _SHARED_DSP = 3, 24
"""DSP48E2 of the post-processor and the norm lane of each array row, and of what exists once (estimate)."""


@dataclass(frozen=True)
class Cost:
    """Primitives of a machine, estimated from its parameters."""

    dsp: int
    bram36: int
    uram: int


def dsp48(simd: int, pe: int) -> int:
    """DSP48E2 of a machine with that array: two products each, and the post-processor's and the norm's (estimate)."""
    return simd * pe // 2 + _LANE_DSP * pe + _SHARED_DSP


def _bram(width: int, depth: int, shapes: tuple[tuple[int, int], ...]) -> int:
    return min(ceil_div(width, w) * ceil_div(depth, d) for w, d in shapes)


def _blocks(kind: MemoryKind, width: int, depth: int, shapes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """(BRAM36, URAM) of one memory."""
    if kind is MemoryKind.URAM:
        return 0, ceil_div(width, _URAM[0]) * ceil_div(depth, _URAM[1])
    return _bram(width, depth, shapes), 0


def cost(size: MachineSize) -> Cost:
    """An estimate of DSP48E2, BRAM36 and URAM; `codesign resources` synthesises instead."""
    banks = size.simd // _BANK_LANES
    act = _blocks(size.act_memory, 8 * _BANK_LANES, size.act_words, _TRUE_DUAL_PORT)
    score = _blocks(size.score_memory, 16 * _BANK_LANES, size.max_rows * size.key_words, _SIMPLE_DUAL_PORT)
    fifo = _blocks(size.fifo_memory, size.pe * size.simd, size.fifo_blocks, _SIMPLE_DUAL_PORT)
    bram = (
        banks * (act[0] + score[0])
        + fifo[0]
        + 2 * _bram(16 * size.pe, size.res_words, _SIMPLE_DUAL_PORT)
        + _bram(size.acc_bits * size.pe, size.max_rows, _SIMPLE_DUAL_PORT)
        + _bram(32, size.max_experts * (size.max_rows + 1), _SIMPLE_DUAL_PORT)
        + _bram(INSTRUCTION_BITS, size.max_instructions, _SIMPLE_DUAL_PORT)
        + size.ports * _bram(BEAT_BITS, _READER_FIFO_BEATS, _SIMPLE_DUAL_PORT)
    )
    dsp = dsp48(size.simd, size.pe)
    return Cost(dsp, bram, banks * (act[1] + score[1]) + fifo[1])


def _fits(size: MachineSize, board: Board) -> bool:
    need, have = cost(size), board.resources
    return need.bram36 <= _ROUTED_SHARE * have.bram36 and need.uram <= have.uram


def choose_memories(size: MachineSize, board: Board, stream_blocks: int) -> MachineSize:
    """`size` with the deepest useful block FIFO, and the kinds of memory that leave most of both kinds free.

    `stream_blocks`: blocks of the longest Program; a deeper FIFO is never filled. When nothing fits, the smallest
    is returned and `check_fit` refuses it.
    """
    options = []
    for depth in _FIFO_DEPTHS:
        if depth > max(32, 2 * stream_blocks):
            continue
        for kinds in product(MemoryKind, repeat=3):
            act, score, fifo = kinds
            one = replace(size, act_memory=act, score_memory=score, fifo_memory=fifo, fifo_blocks=depth)
            options.append(one)
        fitting = [one for one in options if _fits(one, board)]
        if fitting:
            return min(fitting, key=lambda one: _load(one, board))
    return min(options, key=lambda one: _load(one, board))


def _load(size: MachineSize, board: Board) -> float:
    need, have = cost(size), board.resources
    return max(need.bram36 / have.bram36, need.uram / max(have.uram, 0.5))


def check_fit(size: MachineSize, board: Board) -> None:
    """Raises InputError naming the resource, what is needed, what the board has, and what to change."""
    need, have = cost(size), board.resources
    for name, needed, available, remedy in (
        ("DSP48E2", need.dsp, have.dsp, "choose a smaller array"),
        ("BRAM36", need.bram36, have.bram36, "reduce tokens, embed_dim or hidden sizes"),
        ("URAM", need.uram, have.uram, "reduce tokens, embed_dim or hidden sizes"),
    ):
        if needed > available:
            raise InputError(f"{name} must be at most {available} on {board.name}, not {needed} (estimated); {remedy}")
