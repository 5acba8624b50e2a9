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

_SIMPLE_DUAL_PORT = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
"""Width and depth of a RAMB18E2, half a BRAM36; the true dual port has one bit more of depth than of width."""
_TRUE_DUAL_PORT = _SIMPLE_DUAL_PORT[1:]
_URAM = (72, 4096)
_FIFO_DEPTHS = (4096, 2048, 1024, 512, 256, 128, 64, 32)
_READER_FIFO_BEATS = 512
_ROUTED_SHARE = 0.9
"""Share of the memory blocks a design may use: beyond, place and route at 300 MHz is not credible."""
_BANK_LANES = 16
_LANE_DSP, _SHARED_DSP = 3, 14
"""DSP48E2 of the post-processor and the norm lane of each array row, and of what exists once."""
_FACTOR_BITS = 27
"""The wider factor of a DSP48E2; accumulators and D * R of layer norms beyond take a second slice in each lane."""
_MEAN_BITS, _SHARED_MEAN_DSP = 16, 3
"""D * R is that much wider than D; what a second slice in each lane goes with in what exists once."""
_PICKS = 32
"""Rows of picks that the router holds."""
_BLOCK_DEPTH = 256
"""Memories of a word of softmax state a row go into block RAM when there are more rows, else into LUTs."""
_ROW_MEMORIES = 3


@dataclass(frozen=True)
class Cost:
    """Primitives of a machine, estimated from its parameters."""

    dsp: int
    bram36: int
    uram: int


def dsp48(simd: int, pe: int, acc_bits: int, norm_dim_max: int) -> int:
    """DSP48E2 of a machine with that array: two products each, the post-processor's and the norm's.

    As many as `codesign resources` finds (docs/resources.md).
    """
    wide_norm = norm_dim_max.bit_length() + _MEAN_BITS > _FACTOR_BITS
    lane = _LANE_DSP + (acc_bits > _FACTOR_BITS) + wide_norm
    return simd * pe // 2 + lane * pe + _SHARED_DSP + wide_norm * _SHARED_MEAN_DSP


def _bram18(width: int, depth: int, shapes: tuple[tuple[int, int], ...] = _SIMPLE_DUAL_PORT) -> int:
    """Halves of a BRAM36."""
    return min(ceil_div(width, w) * ceil_div(depth, d) for w, d in shapes)


def _blocks(kind: MemoryKind, width: int, depth: int, shapes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """(halves of BRAM36, URAM) of one memory."""
    if kind is MemoryKind.URAM:
        return 0, ceil_div(width, _URAM[0]) * ceil_div(depth, _URAM[1])
    return _bram18(width, depth, shapes), 0


def cost(size: MachineSize) -> Cost:
    """An estimate of DSP48E2, BRAM36 and URAM; `codesign resources` synthesises instead."""
    banks = size.simd // _BANK_LANES
    act = _blocks(size.act_memory, 8 * _BANK_LANES, size.act_words, _TRUE_DUAL_PORT)
    score = _blocks(size.score_memory, 16 * _BANK_LANES, size.max_rows * size.key_words, _SIMPLE_DUAL_PORT)
    fifo = _blocks(size.fifo_memory, size.pe * size.simd, size.fifo_blocks, _SIMPLE_DUAL_PORT)
    halves = (
        banks * (act[0] + score[0])
        + fifo[0]
        + 2 * _bram18(16 * size.pe, size.res_words)
        + _bram18(size.acc_bits * size.pe, size.max_rows)
        + _bram18(32, size.max_experts * (size.max_rows + 1))
        + _bram18(INSTRUCTION_BITS, size.max_instructions)
        + size.ports * _bram18(BEAT_BITS, _READER_FIFO_BEATS)
        + _bram18(16 * size.max_experts, size.max_rows)
        + _bram18(20, _PICKS * size.max_experts)
        + (_ROW_MEMORIES * _bram18(16, size.max_rows) if size.max_rows > _BLOCK_DEPTH else 0)
    )
    dsp = dsp48(size.simd, size.pe, size.acc_bits, size.norm_dim_max)
    return Cost(dsp, ceil_div(halves, 2), banks * (act[1] + score[1]) + fifo[1])


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
