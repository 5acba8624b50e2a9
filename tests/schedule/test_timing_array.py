# SPDX-License-Identifier: Apache-2.0
"""The array in the model of cycles; the numbers of cycles were read off traces of the RTL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codesign.schedule.design import MachineSize
from codesign.schedule.isa import Instruction, Opcode, Post
from codesign.schedule.timing import InstructionTime, Supply, estimate

SIZE = MachineSize(
    simd=16, pe=16, ports=2, act_words=2048, res_words=1024, max_rows=64, key_words=3, max_experts=14, acc_bits=21,
    norm_dim_max=112, max_instructions=256, fifo_blocks=4096,
)  # fmt: skip
FAST = Supply(bytes_per_cycle=64.0, latency=60.0)
START = Instruction(Opcode.LOAD, words=2, blocks=1)
WAIT = Instruction(Opcode.ATTENTION, rows=64, keys=48, num_heads=12, dim=16)
"""Long enough for everything after it to be read ahead."""


def linear(rows: int, n_tiles: int, k_words: int, chain: int = 1, post: Post = Post.INT8) -> Instruction:
    blocks = SIZE.dense_blocks(n_tiles, k_words, 8)
    return Instruction(
        Opcode.LINEAR, post, rows=rows, n_tiles=n_tiles, k_words=k_words, blocks=blocks, chain=chain
    )  # fmt: skip


def times(*program: Instruction) -> list[InstructionTime]:
    """Of the instructions, once all are read ahead."""
    timed = estimate((START, WAIT, *program), SIZE, FAST, ())
    return list(timed.instructions[2:])


def total(*program: Instruction) -> int:
    return sum(one.cycles for one in times(*program))


def test_a_tile_of_few_rows_takes_eight_slots() -> None:
    """RTL: 209 cycles for 21 tiles, of which three bring 4 blocks of records and the first waits for 6 rows to land."""
    chained = times(*(linear(6, 3, 7, chain=int(n > 0)) for n in range(4)))
    assert [one.cycles for one in chained[1:-1]] == [209, 209]
    assert chained[1].compute == 21 * 6
    assert chained[1].stall == 21 * 2 + 2 * 4  # empty slots; records of all tiles but the first, which waits for rows
    assert chained[1].fill == 209 - chained[1].compute - chained[1].stall
    assert chained[1].memory == 0


def test_a_tile_of_many_rows_hides_its_load() -> None:
    one = times(*(linear(64, 3, 7, chain=int(n > 0)) for n in range(3)))[1]
    assert one.cycles == one.compute == 21 * 64


@pytest.mark.parametrize(("rows", "n_tiles", "cycles"), [(6, 7, 83), (1, 7, 48)])
def test_norm_adds_its_latency(rows: int, n_tiles: int, cycles: int) -> None:
    """RTL: 83 cycles from the last row of a LINEAR to the last of the NORM that is chained on it; a word a cycle."""
    norm = Instruction(Opcode.NORM, rows=rows, n_tiles=n_tiles, blocks=n_tiles * SIZE.record_blocks, chain=1)
    add = linear(rows, n_tiles, 3, chain=0, post=Post.ADD)
    assert total(add, norm) - total(add) == cycles


def test_heads_load_keys_while_rows_compute() -> None:
    """Of many rows the keys cost nothing: 3 tiles of keys and 3 words of keys a head, 64 rows each."""
    few, many = (Instruction(Opcode.ATTENTION, rows=64, keys=48, num_heads=heads, dim=16) for heads in (4, 12))
    assert total(many) - total(few) == pytest.approx(8 * 6 * 64, rel=0.02)


def test_results_among_those_of_norm_slow_it_down() -> None:
    """A LINEAR of one k word writes a row as soon as it reads it, and ACT has one port for writing."""
    norm = Instruction(Opcode.NORM, rows=64, n_tiles=3, blocks=3 * SIZE.record_blocks)
    one, two = total(norm, linear(64, 1, 1)), total(norm, linear(64, 1, 2))
    assert 30 < one - (two - 64) < 60


def test_an_expert_without_tokens_that_was_requested_ahead_costs_its_blocks() -> None:
    blocks = SIZE.dense_blocks(2, 2, 8) * 2
    experts = Instruction(
        Opcode.EXPERTS, rows=8, n_tiles=2, k_words=2, n_tiles2=2, k_words2=2, blocks=blocks, num_experts=4, ahead=3
    )

    def cycles(*tokens: int) -> int:
        return estimate((START, WAIT, experts), SIZE, FAST, [tokens]).cycles

    assert cycles(8, 0, 0, 0) == pytest.approx(cycles(8, 8, 0, 0) - 8 * 8 - 2 * 2 * 4, abs=60)
    assert cycles(0, 0, 0, 8) > cycles(8, 0, 0, 0)


def test_experts_may_differ_in_width() -> None:
    """Each reads its own blocks, and those that are dropped too: nothing is left in the stream."""
    blocks = SIZE.dense_blocks(2, 2, 8) * 2
    widths = sum(width << 2 * e for e, width in enumerate((0, 1, 2, 0)))
    experts = Instruction(
        Opcode.EXPERTS, rows=8, n_tiles=2, k_words=2, n_tiles2=2, k_words2=2, blocks=blocks, num_experts=4, ahead=4,
        widths=widths,
    )  # fmt: skip
    stored = replace(experts, widths=0)
    slow = replace(FAST, bytes_per_cycle=2.0)
    for tokens in ((8, 0, 0, 0), (0, 8, 0, 0), (4, 4, 4, 4), (0, 0, 0, 8)):
        program = (START, experts, linear(8, 1, 1, chain=0))
        cycles = estimate(program, SIZE, slow, [tokens]).cycles
        read = sum(experts.blocks_of(e, SIZE.record_blocks) for e in range(4)) + program[-1].blocks
        assert cycles == pytest.approx(read * SIZE.block_bytes / 2.0, rel=0.15)
        assert cycles < 0.8 * estimate((START, stored, program[-1]), SIZE, slow, [tokens]).cycles
