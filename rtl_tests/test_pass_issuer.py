# SPDX-License-Identifier: Apache-2.0
"""`pass_issuer` against a model: the passes of random instructions, at random paces, without lost cycles."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import cocotb
import pytest
from cocotb.triggers import FallingEdge
from control_bench import SIZES, decode_pass, machine
from instructions import Maker
from resetting import start_in_reset
from unit import Unit, run

from codesign.emit.params import PassKind, PassPost, RowSource
from codesign.schedule.design import MachineSize
from codesign.schedule.isa import PLANES, SLICE_BITS, Instruction, Opcode, Width


@pytest.mark.parametrize("size", ["simd16", "simd32", "simd64"])
def test_pass_issuer(size: str) -> None:
    run(Unit("pass_issuer"), size, "test_pass_issuer", SIZES[size])


# ---- the model ----


@dataclass(frozen=True)
class Pass:
    """The fields of codesign_pkg::pass_t that a kind of pass uses; the others are not compared."""

    kind: PassKind
    last: bool
    post: PassPost | None = None
    source: RowSource | None = None
    planes: int | None = None
    align: int | None = None
    queued: bool | None = None
    queue_base: int | None = None
    rows: int | None = None
    keys: int | None = None
    k_words: int | None = None
    n_tiles: int | None = None
    blocks: int | None = None
    src_base: int | None = None
    src_stride: int | None = None
    kv_base: int | None = None
    dst_base: int | None = None
    dst_stride: int | None = None
    column: int | None = None
    dim: int | None = None
    multiplier: int | None = None
    shift: int | None = None


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def attention(i: Instruction, size: MachineSize) -> Iterator[Pass]:
    for head in range(i.num_heads):
        score = Pass(
            PassKind.SCORE, False, PassPost.SCORE, RowSource.READY, rows=i.rows, keys=i.keys, queued=False,
            k_words=ceil_div(i.keys, size.simd), n_tiles=ceil_div(i.keys, size.pe), src_base=i.src_base,
            src_stride=i.src_stride, kv_base=i.aux_base, column=head * i.dim & 0xFFFF, dim=i.dim,
            multiplier=i.multiplier, shift=i.shift,
        )  # fmt: skip
        yield score
        yield replace(
            score, kind=PassKind.MIX, post=PassPost.MIX, source=RowSource.PASS, last=head == i.num_heads - 1,
            kv_base=i.aux2_base, dst_base=i.dst_base, dst_stride=i.dst_stride, multiplier=i.multiplier2, shift=i.shift2,
        )  # fmt: skip


def experts(i: Instruction, counts: list[int], size: MachineSize) -> Iterator[Pass]:
    wanted = [e for e in range(i.num_experts) if counts[e] or e < i.ahead]
    for e in wanted:
        width = Width(i.widths >> (2 * e) & 3) if e < 32 else Width.STORED
        planes = PLANES[i.weight_format] if width is Width.STORED else SLICE_BITS[width] + 1
        if counts[e] == 0:
            tiles = i.n_tiles * i.k_words + i.n_tiles2 * i.k_words2
            blocks = (i.n_tiles + i.n_tiles2) * size.record_blocks + tiles * planes
            yield Pass(PassKind.DROP, e == wanted[-1], blocks=blocks)
            continue
        first = Pass(
            PassKind.DENSE, False, PassPost.GELU, RowSource.READY, planes, 8 - planes if width is Width.STORED else 0,
            queued=True, queue_base=e * (size.max_rows + 1) + 1, rows=counts[e], k_words=i.k_words, n_tiles=i.n_tiles,
            src_base=i.src_base, src_stride=i.src_stride, dst_base=i.aux_base, dst_stride=i.aux_stride,
            multiplier=i.multiplier, shift=i.shift,
        )  # fmt: skip
        yield first
        yield replace(
            first, last=e == wanted[-1], post=PassPost.GATED, source=RowSource.PASS, k_words=i.k_words2,
            n_tiles=i.n_tiles2, src_base=i.aux_base, src_stride=i.aux_stride, dst_base=i.dst_base,
            dst_stride=i.dst_stride, multiplier=None, shift=None,
        )  # fmt: skip


def passes(i: Instruction, source: RowSource, counts: list[int], size: MachineSize) -> list[Pass]:
    """What the unified unit must be given."""
    if i.opcode is Opcode.ATTENTION:
        return list(attention(i, size))
    if i.opcode is Opcode.EXPERTS:
        return list(experts(i, counts, size))
    route, planes = i.opcode is Opcode.ROUTE, PLANES[i.weight_format]
    one = Pass(
            PassKind.DENSE, True, PassPost.LOGITS if route else PassPost(i.post), source, planes, 8 - planes,
            queued=False, rows=i.rows, k_words=i.k_words, n_tiles=i.n_tiles, src_base=i.src_base,
            src_stride=i.src_stride, dst_base=None if route else i.dst_base, dst_stride=None if route else i.dst_stride,
            multiplier=i.multiplier, shift=i.shift,
    )  # fmt: skip
    return [one]


# ---- the bench ----


@dataclass
class Seen:
    """What came out for one instruction, and in which cycles after its start."""

    passes: list[dict[str, int]]
    cycles: list[int]
    reads: int = 0
    nothing: int = 0
    idle_after: int = 0


async def start(dut: Any) -> None:
    dut.start_i.value, dut.pass_ready_i.value = 0, 0
    await start_in_reset(dut)


async def issue(
    dut: Any, i: Instruction, source: RowSource, counts: list[int], rng: random.Random, stall_percent: int
) -> Seen:
    seen = Seen([], [])
    assert dut.idle_o.value
    dut.instr_i.value = int.from_bytes(i.encode(), "little")
    dut.counts_i.value = sum(count << (16 * e) for e, count in enumerate(counts))
    await FallingEdge(dut.clk_i)
    dut.source_i.value, dut.start_i.value = int(source), 1
    held = None
    for cycle in range(100_000):
        await FallingEdge(dut.clk_i)
        if cycle == 0:
            dut.start_i.value, dut.source_i.value = 0, rng.randrange(3)
        seen.reads += int(dut.reads_o.value)
        seen.nothing += int(dut.nothing_o.value)
        word = int(dut.pass_o.value) if dut.pass_valid_o.value else None
        assert held is None or word == held, "valid and payload hold until accepted"
        ready = rng.randrange(100) >= stall_percent
        dut.pass_ready_i.value = int(ready)
        held = None if ready else word
        if word is not None and ready:  # taken at the next rising edge
            seen.passes.append(decode_pass(word))
            seen.cycles.append(cycle)
        if dut.idle_o.value:
            seen.idle_after = cycle
            return seen
    raise AssertionError("the issuer did not come to an end")


def random_counts(i: Instruction, rng: random.Random, size: MachineSize) -> list[int]:
    """Queue lengths; beyond num_experts anything."""
    empty = rng.choice((0, 30, 80, 100))
    return [0 if rng.randrange(100) < empty else rng.randint(1, i.rows or 1) for _ in range(size.max_experts)]


OPCODES = (Opcode.LINEAR, Opcode.ROUTE, Opcode.ATTENTION, Opcode.EXPERTS, Opcode.EXPERTS)


async def check(dut: Any, stall_percent: int, rounds: int, seed: int) -> list[tuple[Instruction, Seen]]:
    size, rng = machine(), random.Random(seed)
    maker, done = Maker(size, rng), []
    await start(dut)
    for _ in range(rounds):
        i = maker.legal(rng.choice(OPCODES))
        chained = i.opcode in (Opcode.LINEAR, Opcode.ROUTE)
        source = rng.choice(tuple(RowSource)) if chained else RowSource.READY
        counts = random_counts(i, rng, size)
        expected = passes(i, source, counts, size)
        seen = await issue(dut, i, source, counts, rng, stall_percent)
        assert len(seen.passes) == len(expected), f"{i}: {counts}"
        for got, want in zip(seen.passes, expected, strict=True):
            for name, value in asdict(want).items():
                assert value is None or got[name] == int(value), f"{i}: {name} of {want} is {got[name]}"
        assert seen.nothing == (not expected)
        assert seen.reads == (i.opcode is Opcode.EXPERTS and bool(expected))
        done.append((i, seen))
    return done


@cocotb.test()
async def with_stalls(dut: Any) -> None:
    """Every field of every pass, whatever the array's pace."""
    done = await check(dut, 60, 250, 1)
    assert {i.opcode for i, _ in done} == set(OPCODES)
    assert any(seen.nothing for _, seen in done)
    assert any(p["kind"] == PassKind.DROP for _, seen in done for p in seen.passes)


@cocotb.test()
async def at_full_pace(dut: Any) -> None:
    """A LINEAR's pass is there in the cycle after the start; the passes of a head or an expert follow closely."""
    for i, seen in await check(dut, 0, 150, 2):
        if i.opcode in (Opcode.LINEAR, Opcode.ROUTE):
            assert seen.cycles == [0]
            assert seen.idle_after == 1
        if i.opcode is Opcode.ATTENTION:
            assert seen.cycles[0] == ceil_div(i.keys, machine().pe) + 1
            assert all(b - a == 2 for a, b in zip(seen.cycles, seen.cycles[1:], strict=False))
        if i.opcode is Opcode.EXPERTS:
            gaps = [b - a for a, b in zip(seen.cycles, seen.cycles[1:], strict=False)]
            assert all(gap <= 2 + i.num_experts for gap in gaps)
