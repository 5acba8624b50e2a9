# SPDX-License-Identifier: Apache-2.0
"""The machine refuses what codesign.schedule.legal refuses, and nothing else: damaged instructions and Programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.schedule.design import MachineSize
from codesign.schedule.isa import FIELDS, INSTRUCTION_BITS, PLANES, Instruction, Opcode, Post, Space, Unit, WeightFormat
from codesign.schedule.legal import RULES, Before, misplaced, violation
from tests.hls.build import compile_hls, evaluate
from tests.hls.test_machine_csim import SIZES
from tests.legal_programs import Maker

FIELD_BITS = sum(width for _, width in FIELDS)
PER_OPCODE = 2000
UNKNOWN, RESERVED = "known codes", "no bit above the fields"
PLACES = {
    None: {"fence at most its own index"},
    Opcode.LOAD: {"a STORE within its fence"},
    Opcode.EXPERTS: {
        "a ROUTE before it", "the ROUTE within its fence", "rows of the ROUTE", "num_experts of the ROUTE"
    },
}  # fmt: skip
"""The rules of `misplaced`, those of every opcode first."""


def legal_instructions(size: MachineSize, rng: np.random.Generator) -> list[Instruction]:
    """One instruction of every opcode, post and unit that the machine accepts, at random sizes and places."""
    rows, k, n = int(rng.integers(1, size.max_rows + 1)), int(rng.integers(1, 3)), int(rng.integers(1, 3))
    form = WeightFormat(int(rng.integers(3)))
    planes, words = PLANES[form], -(-n * size.pe // size.simd)
    acts, ress = size.block_act_words * n - 1, size.block_res_words * n
    store = Instruction(Opcode.STORE, space=Space.OUTPUT, words=8)
    dense = Instruction(
        Opcode.LINEAR, rows=rows, k_words=k, n_tiles=n, weight_format=form, src_base=5, src_stride=k + 1
    )
    dense = replace(dense, blocks=size.dense_blocks(n, k, planes), dst_base=3, dst_stride=n, shift=20)
    route = replace(dense, opcode=Opcode.ROUTE, n_tiles=1, blocks=size.dense_blocks(1, k, planes))
    heads = Instruction(Opcode.ATTENTION, rows=rows, keys=rows, num_heads=2, dim=size.simd // 2, src_stride=1)
    heads = replace(heads, shift=63, shift2=1)
    norm = Instruction(Opcode.NORM, rows=rows, n_tiles=n, dim=n * size.pe - 1, src_stride=n, dst_stride=words)
    experts = replace(dense, opcode=Opcode.EXPERTS, n_tiles2=k, k_words2=n, num_experts=2, dst_stride=k)
    both = size.dense_blocks(n, k, planes) + size.dense_blocks(k, n, planes)
    return [
        Instruction(Opcode.LOAD, unit=Unit.ACT, words=acts, blocks=n, dst_base=size.act_words - acts),
        Instruction(Opcode.LOAD, unit=Unit.RES, words=ress, blocks=n, dst_base=size.res_words - ress),
        Instruction(Opcode.LOAD, space=Space.OUTPUT, unit=Unit.RES, words=ress, blocks=n),
        replace(store, unit=Unit.ACT, src_base=size.act_words - 8),
        replace(store, unit=Unit.RES, src_base=size.res_words - 8),
        replace(store, unit=Unit.QUEUE, src_base=1),
        *(replace(dense, post=post) for post in Post),
        replace(heads, dst_stride=2, aux_base=8, aux2_base=9),
        replace(norm, shift=14, blocks=n * size.record_blocks),
        replace(route, num_experts=size.max_experts, top_k=2),
        replace(experts, blocks=both, aux_base=700, aux_stride=n + 1),
    ]


def damaged(word: int, size: MachineSize, rng: np.random.Generator) -> int:
    """The instruction with up to two fields changed: by one, to a bound, or to anything; or one bit turned."""
    if rng.random() < 0.02:
        return word ^ (1 << int(rng.integers(FIELD_BITS, INSTRUCTION_BITS)))
    if rng.random() < 0.1:
        return word ^ (1 << int(rng.integers(INSTRUCTION_BITS)))
    for _ in range(int(rng.integers(3))):
        index = int(rng.integers(len(FIELDS)))
        lsb, width = sum(w for _, w in FIELDS[:index]), FIELDS[index][1]
        old = (word >> lsb) & ((1 << width) - 1)
        bounds = (size.act_words, size.res_words, size.max_rows, size.max_experts, size.norm_dim_max, 0, 64)
        anything = int.from_bytes(rng.bytes(8), "little") >> int(rng.integers(64))
        new = int(rng.choice([old + 1, old - 1, *bounds])) if rng.random() < 0.7 else anything
        word ^= (old ^ (new % (1 << width))) << lsb
    return word


def place(word: int, rng: np.random.Generator) -> Before:
    """What may stand before the instruction: most often something by which it is legal."""
    values, lsb = {}, 0
    for name, width in FIELDS:
        values[name] = (word >> lsb) & ((1 << width) - 1)
        lsb += width
    fence, rows, experts = values["fence"], values["rows"], values["num_experts"]
    around = rng.integers(-1, 2, 4) * (rng.random(4) < 0.3)
    ends = [int(end) for end in rng.choice([fence, max(fence - 1, 0), fence + 1, 0], 2, p=(0.5, 0.3, 0.1, 0.1))]
    near = [max(int(v), 0) for v in np.array([fence + 1, rows, experts]) + around[:3]]
    return Before(max(near[0] - 1 + int(around[3]), 0), *ends, rows=near[1], experts=near[2])


def verdict(word: int, before: Before, size: MachineSize) -> tuple[Opcode | None, str | None]:
    """What codesign.schedule says to an instruction: its opcode if its codes are known, and the rule it breaks."""
    try:
        instruction = Instruction.decode(word.to_bytes(INSTRUCTION_BITS // 8, "little"))
    except InputError:
        return None, UNKNOWN
    broken = violation(instruction, size) or misplaced(instruction, before)
    return instruction.opcode, RESERVED if word >> FIELD_BITS else broken


@pytest.mark.parametrize("size", [SIZES[0], SIZES[3]], ids=lambda size: f"{size.simd}x{size.pe}")
def test_damaged_instructions(tmp_path: Path, size: MachineSize) -> None:
    rng = np.random.default_rng(size.pe)
    units = compile_hls(tmp_path, size, ("tests/units.cpp",), "c++17")
    words: list[int] = []
    while len(words) < PER_OPCODE * len(Opcode):
        for instruction in legal_instructions(size, rng):
            assert violation(instruction, size) is None, instruction
            word = int.from_bytes(replace(instruction, fence=int(rng.integers(1, 9))).encode(), "little")
            words += [word, *(damaged(word, size, rng) for _ in range(4))]
    places = [place(word, rng) for word in words]
    verdicts = [verdict(word, before, size) for word, before in zip(words, places, strict=True)]
    parts = [[(word >> (32 * i)) & 0xFFFFFFFF for i in range(INSTRUCTION_BITS // 32)] for word in words]
    records = np.array([[*part, *astuple(before)] for part, before in zip(parts, places, strict=True)])
    got = evaluate(units, "legal", records, 1)[:, 0]
    wrong = [(hex(w), v) for w, v, g in zip(words, verdicts, got, strict=True) if (v[1] is None) != bool(g)]
    assert not wrong, wrong[:3]
    # Of every opcode, each rule was broken by some instruction, and some were accepted.
    for opcode, rule in RULES.items():
        texts = {text for _, text in rule(Instruction(opcode), size)} | PLACES[None] | PLACES.get(opcode, set())
        assert texts | {None, RESERVED} <= {text for of, text in verdicts if of is opcode}, opcode
    assert (None, UNKNOWN) in verdicts


def test_programs(csim: Callable[[MachineSize], Path], tmp_path: Path) -> None:
    """Programs at the bounds of what may stand where, each run to its end."""
    size = SIZES[0]
    for judged in Maker(size, bytearray()).programs():
        folder = tmp_path / judged.name
        folder.mkdir()
        result = judged.job.run(csim(size), folder)
        if judged.fault is None:
            assert (result.status, result.stderr) == (0, ""), judged.name
        else:
            problem = f"run 0 must end with status OK, not ILLEGAL_INSTRUCTION at instruction {judged.fault};"
            assert result.status == 3, judged.name
            assert problem in result.stderr, judged.name
