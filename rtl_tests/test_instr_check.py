# SPDX-License-Identifier: Apache-2.0
"""`instr_check` gives the verdict of `codesign.schedule.legal` on thousands of good and broken instructions."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import pytest
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge
from control_bench import SIZES, machine
from instructions import INSTRUCTION_BYTES, Maker, mutate
from unit import Unit, run

from codesign.errors import InputError
from codesign.schedule.design import MachineSize
from codesign.schedule.isa import FIELDS, Instruction, Opcode
from codesign.schedule.legal import RULES, violation

LATENCY = 14
ROUNDS = 800
FIELD_BITS = sum(width for _, width in FIELDS)


@pytest.mark.parametrize("size", SIZES)
def test_instr_check(size: str) -> None:
    run(Unit("instr_check"), size, "test_instr_check", SIZES[size])


def reason(word: bytes, size: MachineSize) -> str | None:
    """Why the machine must refuse the instruction (docs/machine.md, "Status"), None when it must not."""
    if int.from_bytes(word, "little") >> FIELD_BITS:
        return "bits above the last field"
    try:
        return violation(Instruction.decode(word), size)
    except InputError:
        return "known codes"


async def start(dut: Any) -> None:
    dut.start_i.value, dut.instr_i.value, dut.rst_ni.value = 0, 0, 0
    Clock(dut.clk_i, 2, unit="ns").start()
    await ClockCycles(dut.clk_i, 4)
    await FallingEdge(dut.clk_i)
    dut.rst_ni.value = 1


async def verdict(dut: Any, word: bytes) -> bool:
    """Whether the machine takes the instruction; it answers after the same number of cycles each time."""
    dut.instr_i.value = int.from_bytes(word, "little")
    dut.start_i.value = 1
    await FallingEdge(dut.clk_i)
    dut.start_i.value = 0
    for _ in range(LATENCY - 1):
        assert not dut.done_o.value
        await FallingEdge(dut.clk_i)
    assert dut.done_o.value
    return bool(dut.legal_o.value)


@cocotb.test()
async def agrees_with_the_rules(dut: Any) -> None:
    """Legal instructions of every kind, broken ones, and noise."""
    size, rng = machine(), random.Random(5)
    maker, reasons = Maker(size, rng), set()
    taken = refused = 0
    await start(dut)
    for _ in range(ROUNDS):
        for opcode in Opcode:
            good = maker.legal(opcode)
            assert violation(good, size) is None
            for word in (good.encode(), mutate(good, rng), mutate(good, rng)):
                expected = reason(word, size)
                assert await verdict(dut, word) == (expected is None), f"{Instruction.decode(word)}: {expected}"
                reasons.add((opcode, expected))
                taken += expected is None
                refused += expected is not None
        noise = rng.randbytes(INSTRUCTION_BYTES)
        assert await verdict(dut, noise) == (reason(noise, size) is None)
    dut._log.info(f"{taken} taken, {refused} refused for {len(reasons)} reasons")
    assert taken > 3 * ROUNDS
    assert refused > 3 * ROUNDS
    for opcode in Opcode:  # every rule was broken at least once
        texts = {text for kind, text in reasons if kind is opcode}
        assert rules(opcode) <= texts, f"{opcode.name} never broke: {rules(opcode) - texts}"


def rules(opcode: Opcode) -> set[str]:
    """The texts of an opcode's rules that a changed field can break."""
    blank = Instruction(opcode, rows=1)
    return {text for _, text in RULES[opcode](blank, machine())}
