# SPDX-License-Identifier: Apache-2.0
"""The counter of path lengths and primitives, on circuits written by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from codesign.engines.resources_netlist import REGISTERS, End, Summary, summarise
from codesign.engines.resources_paths import Timing, timing
from codesign.engines.resources_primitives import ADDER_LEVELS, MULTIPLIER_LEVELS, RAM_ACCESS_LEVELS
from codesign.errors import CheckError

OUTPUTS = {"O", "CO", "Q", "P", "DOUTADOUT", "DOUTBDOUT", "DOA", "DOB", "SPO", "DPO", "y", "z"}


@dataclass
class Circuit:
    """A netlist as Yosys writes it; nets are numbers that the circuit hands out, with a name where one is given."""

    cells: dict[str, object] = field(default_factory=dict)
    ports: dict[str, object] = field(default_factory=dict)
    names: dict[str, object] = field(default_factory=dict)
    nets: int = 1

    def net(self, name: str = "") -> int:
        self.nets += 1
        if name:
            self.names[name] = {"hide_name": 0, "bits": [self.nets]}
        return self.nets

    def cell(self, kind: str, parameters: dict[str, str] | None = None, /, **pins: list[int | str]) -> None:
        self.cells[f"$cell{len(self.cells)}"] = {
            "type": kind,
            "parameters": parameters or {},
            "port_directions": {pin: "output" if pin in OUTPUTS else "input" for pin in pins},
            "connections": pins,
        }

    def port(self, name: str, direction: str, bits: list[int]) -> None:
        self.ports[name] = {"direction": direction, "bits": bits}

    def ff(self, d: int, name: str = "") -> int:
        q = self.net(name)
        self.cell("FDRE", D=[d], Q=[q], CE=["1"], R=["0"], C=[0])
        return q

    def lut(self, *inputs: int, name: str = "") -> int:
        out = self.net(name)
        self.cell(f"LUT{len(inputs)}", {}, O=[out], **{f"I{n}": [bit] for n, bit in enumerate(inputs)})
        return out

    def summary(self, *boxes: str) -> Summary:
        content = {"modules": {"unit": {"ports": self.ports, "cells": self.cells, "netnames": self.names}}}
        return summarise(json.dumps(content).encode(), frozenset(boxes))


def levels(summary: Summary, source: End = REGISTERS, sink: End = REGISTERS) -> int | None:
    return next((path.levels for path in summary.paths if (path.source, path.sink) == (source, sink)), None)


def test_every_lut_between_two_registers_is_a_level() -> None:
    c = Circuit()
    start = c.ff(c.net(), "start_q")
    c.ff(c.lut(c.lut(c.lut(start, c.net()), start)), "stop_q")
    found = c.summary()
    (path,) = found.paths
    assert (path.levels, path.first, path.last) == (3, "start_q", "stop_q")
    assert dict(found.primitives) == {"FDRE": 2, "LUT1": 1, "LUT2": 2}


def test_no_register_no_path() -> None:
    c = Circuit()
    c.ff(c.lut(c.net()))
    assert levels(c.summary()) is None


def carry_chain(c: Circuit, first: int, slices: int, enter: int = 0) -> list[int]:
    """A chain of CARRY4 whose S[0] of slice `enter` is `first`; the O of each slice."""
    carry: int | str = "0"
    sums = []
    for place in range(slices):
        out, carries = [c.net() for _ in range(4)], [c.net() for _ in range(4)]
        s: list[int | str] = [first if place == enter else "0", "0", "0", "0"]
        c.cell("CARRY4", {}, S=s, DI=["0"] * 4, CI=[carry], CYINIT=["0"], O=out, CO=carries)
        carry = carries[3]
        sums += out
    return sums


@pytest.mark.parametrize("slices", [1, 2, 12])
def test_a_carry_chain_is_one_level_however_long(slices: int) -> None:
    c = Circuit()
    sums = carry_chain(c, c.lut(c.ff(c.net()), c.net()), slices)
    c.ff(c.lut(sums[-1]))
    assert levels(c.summary()) == 3  # LUT, chain, LUT


def test_two_chains_one_after_the_other_are_two_levels() -> None:
    c = Circuit()
    c.ff(carry_chain(c, carry_chain(c, c.ff(c.net()), 3)[-1], 3)[-1])
    assert levels(c.summary()) == 2


def test_a_carry_does_not_reach_lower_bits() -> None:
    c = Circuit()
    sums = carry_chain(c, c.ff(c.net()), 2, enter=1)
    c.ff(sums[0])
    assert levels(c.summary()) is None


def test_a_carry_that_leaves_the_chain_and_starts_another_is_counted_again() -> None:
    c = Circuit()
    carries = [c.net() for _ in range(4)]
    s: list[int | str] = [c.ff(c.net()), "0", "0", "0"]
    c.cell("CARRY4", {}, S=s, DI=["0"] * 4, CI=["0"], CYINIT=["0"], CO=carries)
    c.ff(carry_chain(c, c.lut(carries[2]), 1)[0])
    assert levels(c.summary()) == 3


def test_muxf_joins_its_luts_for_nothing_but_its_select_is_a_level() -> None:
    through, selected = Circuit(), Circuit()
    out = through.net()
    through.cell(
        "MUXF7", {}, I0=[through.lut(through.ff(through.net()))], I1=[through.net()], S=[through.net()], O=[out]
    )
    through.ff(out)
    assert levels(through.summary()) == 1
    out = selected.net()
    selected.cell("MUXF7", {}, I0=["0"], I1=["1"], S=[selected.ff(selected.net())], O=[out])
    selected.ff(out)
    assert levels(selected.summary()) == 1


def test_lut_ram_is_a_level_after_the_clock_and_after_its_own_address_only() -> None:
    c = Circuit()
    data, other = c.net(), c.net()
    c.cell("RAM32M16", {}, ADDRA=[c.lut(c.ff(c.net()))], ADDRB=[c.lut(c.lut(c.ff(c.net())))], DOA=[data], DOB=[other],
           DIA=[c.lut(c.lut(c.lut(c.ff(c.net()))))], WE=["1"], WCLK=[0])  # fmt: skip
    c.ff(data)
    c.port("y", "output", [data])
    found = c.summary()
    assert levels(found, sink=End("", "y")) == 2  # LUT, address; not port B's two LUTs
    assert levels(found) == 3  # to the written data
    assert dict(found.primitives)["RAM32M16"] == 1


def ram(c: Circuit, register: str) -> int:
    out = c.net()
    c.cell("RAMB36E2", {"DOA_REG": register}, DOUTADOUT=[out], ADDRARDADDR=[c.lut(c.ff(c.net()))], CLKARDCLK=[0])
    return out


@pytest.mark.parametrize(("register", "after"), [("0" * 32, RAM_ACCESS_LEVELS), ("0" * 31 + "1", 0)])
def test_a_ram_block_ends_paths_and_starts_late_without_its_output_register(register: str, after: int) -> None:
    c = Circuit()
    c.port("y", "output", [c.lut(ram(c, register))])
    found = c.summary()
    assert levels(found) == 1
    assert levels(found, sink=End("", "y")) == 1 + after


def test_registers_behind_a_ram_are_those_that_nothing_else_reads_past() -> None:
    c = Circuit()
    alone, shared = ram(c, "0"), ram(c, "0")
    c.ff(alone)
    c.ff(shared)
    c.ff(c.lut(shared))
    assert c.summary().ff_after_block == 1


def dsp(c: Circuit, registers: tuple[str, ...], a: int | str = "0", b: int | str = "0", addend: int | str = "0") -> int:
    out = c.net()
    c.cell("DSP48E1", dict.fromkeys(registers, "1"), A=[a], B=[b], C=[addend], P=[out], CLK=[0])
    return out


MULTIPLY_ADD = MULTIPLIER_LEVELS + ADDER_LEVELS


@pytest.mark.parametrize(
    ("registers", "to_a", "from_p", "inside"),
    [
        ((), None, None, MULTIPLY_ADD),  # through, from the register before to the one behind
        (("PREG",), MULTIPLY_ADD, 0, MULTIPLY_ADD),
        (("AREG", "PREG"), 0, 0, MULTIPLY_ADD),
        (("MREG",), MULTIPLIER_LEVELS, ADDER_LEVELS, MULTIPLIER_LEVELS),
        (("AREG", "MREG", "PREG"), 0, 0, MULTIPLIER_LEVELS),
    ],
)
def test_a_dsp_counts_what_no_register_separates(
    registers: tuple[str, ...], to_a: int | None, from_p: int | None, inside: int
) -> None:
    c = Circuit()
    c.port("x", "input", [c.net()])
    product = dsp(c, registers, a=c.nets)
    c.port("y", "output", [product])
    found = c.summary()
    assert levels(found, source=End("", "x")) == to_a
    assert levels(found, sink=End("", "y")) == from_p
    c = Circuit()
    c.ff(dsp(c, registers, a=c.ff(c.net())))
    assert levels(c.summary()) == inside


def test_the_addend_of_a_dsp_passes_its_adder_only() -> None:
    c = Circuit()
    c.ff(dsp(c, ("MREG",), addend=c.lut(c.ff(c.net()))))
    assert levels(c.summary()) == 1 + ADDER_LEVELS


def test_an_adder_before_a_dsp_is_one_that_nothing_else_reads() -> None:
    alone, shared = Circuit(), Circuit()
    for c in (alone, shared):
        sums = carry_chain(c, c.lut(c.ff(c.net()), c.net()), 2)
        c.cell("DSP48E1", {"AREG": "1"}, A=[*sums], B=["0"], P=[c.net()], CLK=[0])
    shared.ff(sums[3])
    assert alone.summary().lut_before_dsp == 1
    assert shared.summary().lut_before_dsp == 0


def test_a_loop_without_a_register_is_refused() -> None:
    c = Circuit()
    back = c.net()
    c.cell("LUT1", {}, I0=[c.lut(back)], O=[back])
    c.ff(back)
    with pytest.raises(CheckError, match="no path may lead back to itself without a register"):
        c.summary()


def test_an_unknown_primitive_is_refused() -> None:
    c = Circuit()
    c.cell("MYSTERY", {}, A=[c.net()])
    with pytest.raises(CheckError, match="every cell must be a known primitive, not MYSTERY"):
        c.summary()


def child() -> Timing:
    """x to y through 3 LUTs; x through 2 LUTs to a register; a register through 1 LUT to z."""
    c = Circuit()
    x = c.net()
    c.port("x", "input", [x])
    c.port("y", "output", [c.lut(c.lut(c.lut(x)))])
    c.port("z", "output", [c.lut(c.ff(c.lut(c.lut(x)), "child_q"))])
    return timing(c.summary(), {})


def test_paths_go_through_black_boxes() -> None:
    c = Circuit()
    y, z = c.net(), c.net()
    start = c.ff(c.net(), "start_q")
    c.cells["u_child"] = {
        "type": "child",
        "port_directions": {"x": "input", "y": "output", "z": "output"},
        "connections": {"x": [c.lut(start)], "y": [y], "z": [z]},
    }
    c.ff(c.lut(y), "stop_q")
    c.ff(c.lut(c.lut(c.lut(z))), "other_q")
    found = timing(c.summary("child"), {"child": child()})
    assert found.worst is not None
    assert found.worst.levels == 5  # 1 + 3 + 1, longer than 1 + 2 into the child and 1 + 3 out of it
    assert (found.worst.stations[0], found.worst.stations[-1]) == ("start_q", "stop_q")
    assert not found.loop


@pytest.mark.parametrize(
    ("from_z", "expected", "first", "last"), [(4, 5, "u_child.child_q", "stop_q"), (0, 3, "start_q", "u_child.child_q")]
)
def test_paths_start_and_stop_in_black_boxes(from_z: int, expected: int, first: str, last: str) -> None:
    c = Circuit()
    z = c.net()
    c.cells["u_child"] = {
        "type": "child",
        "port_directions": {"x": "input", "z": "output"},
        "connections": {"x": [c.lut(c.ff(c.net(), "start_q"))], "z": [z]},
    }
    for _ in range(from_z):
        z = c.lut(z)
    c.ff(z, "stop_q")
    worst = timing(c.summary("child"), {"child": child()}).worst
    assert worst is not None
    assert (worst.levels, worst.stations[0], worst.stations[-1]) == (expected, first, last)


def test_boxes_in_a_circle_of_ports_are_told() -> None:
    c = Circuit()
    nets = [c.net(), c.net()]
    for place in range(2):
        c.cells[f"u_{place}"] = {
            "type": "child",
            "port_directions": {"x": "input", "y": "output"},
            "connections": {"x": [nets[place]], "y": [nets[1 - place]]},
        }
    c.port("y", "output", nets[:1])
    start = c.ff(c.net())
    c.cells["u_0"]["connections"]["x"] = [nets[0], start]  # type: ignore[index]
    assert timing(c.summary("child"), {"child": child()}).loop
