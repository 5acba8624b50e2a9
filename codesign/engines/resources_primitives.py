# SPDX-License-Identifier: Apache-2.0
"""What each primitive of a mapped netlist costs, and which of its pins are connected without a clock edge between.

Depth is counted in LUT levels. A LUT is one; a carry chain is one from wherever a signal enters it, however long;
MUXF7 to MUXF9 are in the slice of the LUTs they join and cost nothing, but one through their select pin; LUTRAM and
SRL are one level from the address, and one after the clock. A RAM block without its output register answers as late as
two levels; a DSP's multiplier counts three and its adder two wherever no register separates them. The last three are
our assumption, with a level of about 0.4 ns in mind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from codesign.errors import CheckError

RAM_ACCESS_LEVELS, MULTIPLIER_LEVELS, ADDER_LEVELS = 2, 3, 2


class Kind(Enum):
    """Families of primitives."""

    LUT = "lut"
    LUT_MEMORY = "lut memory"
    SHIFT_REGISTER = "shift register"
    MUX = "muxf"
    CARRY = "carry"
    REGISTER = "ff"
    DSP = "dsp"
    BRAM = "bram"
    URAM = "uram"
    FREE = "free"


@dataclass(frozen=True)
class Primitive:
    """A primitive's kind and the sites it takes: LUTs, flip-flops, DSP slices, halves of a CARRY8 or of a BRAM36."""

    kind: Kind
    sites: int = 1


PRIMITIVES: Mapping[str, Primitive] = MappingProxyType(
    {
        **{f"LUT{n}": Primitive(Kind.LUT) for n in range(1, 7)},
        "INV": Primitive(Kind.LUT),
        "RAM32X1S": Primitive(Kind.LUT_MEMORY),
        "RAM64X1S": Primitive(Kind.LUT_MEMORY),
        "RAM128X1S": Primitive(Kind.LUT_MEMORY, 2),
        "RAM256X1S": Primitive(Kind.LUT_MEMORY, 4),
        "RAM512X1S": Primitive(Kind.LUT_MEMORY, 8),
        "RAM32X1D": Primitive(Kind.LUT_MEMORY, 2),
        "RAM64X1D": Primitive(Kind.LUT_MEMORY, 2),
        "RAM128X1D": Primitive(Kind.LUT_MEMORY, 4),
        "RAM256X1D": Primitive(Kind.LUT_MEMORY, 8),
        "RAM32M": Primitive(Kind.LUT_MEMORY, 4),
        "RAM64M": Primitive(Kind.LUT_MEMORY, 4),
        "RAM32M16": Primitive(Kind.LUT_MEMORY, 8),
        "RAM64M8": Primitive(Kind.LUT_MEMORY, 8),
        "RAM64X8SW": Primitive(Kind.LUT_MEMORY, 8),
        "RAM32X16DR8": Primitive(Kind.LUT_MEMORY, 8),
        "SRL16E": Primitive(Kind.SHIFT_REGISTER),
        "SRLC16E": Primitive(Kind.SHIFT_REGISTER),
        "SRLC32E": Primitive(Kind.SHIFT_REGISTER),
        "MUXF7": Primitive(Kind.MUX),
        "MUXF8": Primitive(Kind.MUX),
        "MUXF9": Primitive(Kind.MUX),
        "CARRY4": Primitive(Kind.CARRY),
        "CARRY8": Primitive(Kind.CARRY, 2),
        **{name: Primitive(Kind.REGISTER) for name in ("FDRE", "FDSE", "FDCE", "FDPE", "LDCE", "LDPE")},
        "DSP48E1": Primitive(Kind.DSP),  # what Yosys' packer knows; stands for a DSP48E2 (resources_yosys.py)
        "DSP48E2": Primitive(Kind.DSP),
        "RAMB18E2": Primitive(Kind.BRAM, 1),
        "RAMB36E2": Primitive(Kind.BRAM, 2),
        "URAM288": Primitive(Kind.URAM),
        "BUFG": Primitive(Kind.FREE),
        "$scopeinfo": Primitive(Kind.FREE),
    }
)

_CLOCKS = frozenset({"C", "G", "CLK", "WCLK", "CLKARDCLK", "CLKBWRCLK", "CLKA", "CLKB"})
_ADDRESS = re.compile(r"(?:ADDR|DPRA|A)([A-H])?\d*")
_READ = re.compile(r"DO([A-H])?\w*|O|SPO|DPO|Q")

Bit = int | str
Pins = Mapping[str, list[Bit]]


@dataclass(frozen=True)
class Cell:
    """One cell of a netlist: bits are net numbers, or constants as strings."""

    name: str
    kind: str
    parameters: Mapping[str, str]
    pins: Pins
    outputs: frozenset[str]
    """The pins that the cell drives."""

    def parameter(self, name: str) -> int:
        """A numeric parameter, 0 when it is not there."""
        text = self.parameters.get(name, "0").strip()
        return int(text, 2) if set(text) <= {"0", "1"} else int(text == "TRUE")


@dataclass(frozen=True)
class Arcs:
    """How a cell takes part in paths: where they start, pass (from bit, to bit) and end, each with its levels."""

    starts: tuple[tuple[Bit, int], ...] = ()
    passes: tuple[tuple[Bit, Bit, int], ...] = ()
    ends: tuple[tuple[Bit, int], ...] = ()
    inside: int = 0
    """Levels of the longest path between two registers of the cell itself."""


def primitive(kind: str) -> Primitive:
    """The primitive of that name. Raises CheckError for one that is not in the table."""
    found = PRIMITIVES.get(kind)
    if found is None:
        raise CheckError(f"every cell must be a known primitive, not {kind}; add it to resources_primitives.PRIMITIVES")
    return found


def arcs(cell: Cell, carry_out: frozenset[Bit]) -> Arcs:
    """The arcs of a cell. `carry_out`: the nets that are outputs CO of carries, from which a chain goes on."""
    kind = primitive(cell.kind).kind
    if kind in (Kind.LUT, Kind.FREE):
        levels = int(kind is Kind.LUT)
        return Arcs(passes=tuple((bit, out, levels) for bit in _inputs(cell) for out in _outputs(cell)))
    if kind is Kind.MUX:
        select = cell.pins["S"]
        return Arcs(passes=tuple((b, out, int(b in select)) for b in _inputs(cell) for out in _outputs(cell)))
    if kind is Kind.CARRY:
        return Arcs(passes=tuple(_carry(cell, carry_out)))
    if kind is Kind.DSP:
        return _dsp(cell)
    ends = tuple((bit, 0) for bit in _inputs(cell))
    if kind in (Kind.LUT_MEMORY, Kind.SHIFT_REGISTER):
        return Arcs(tuple((bit, 1) for bit in _outputs(cell)), tuple(_reads(cell)), ends)
    return Arcs(tuple(_clocked(cell, kind)), (), ends)


def _inputs(cell: Cell) -> Iterator[Bit]:
    for pin, bits in cell.pins.items():
        if pin not in _CLOCKS and pin not in cell.outputs:
            yield from bits


def _outputs(cell: Cell) -> Iterator[Bit]:
    for pin in cell.outputs & cell.pins.keys():
        yield from cell.pins[pin]


def _carry(cell: Cell, carry_out: frozenset[Bit]) -> Iterator[tuple[Bit, Bit, int]]:
    """Bit i of S and DI reaches the outputs from i up; a chain that goes on through CI has been counted already."""
    entries = [(bit, 0, int(bit not in carry_out)) for bit in cell.pins.get("CI", [])]
    entries += [(bit, 0, 1) for bit in cell.pins.get("CYINIT", [])]
    entries += [(bit, place, 1) for pin in ("S", "DI") for place, bit in enumerate(cell.pins.get(pin, []))]
    for pin in ("O", "CO"):
        for place, out in enumerate(cell.pins.get(pin, [])):
            for bit, first, levels in entries:
                if first <= place:
                    yield bit, out, levels


def _reads(cell: Cell) -> Iterator[tuple[Bit, Bit, int]]:
    """From address to data, port by port."""
    for pin, bits in cell.pins.items():
        address = _ADDRESS.fullmatch(pin)
        if address is None or pin in cell.outputs:
            continue
        for out_pin, outs in cell.pins.items():
            read = _READ.fullmatch(out_pin)
            if read is None or (address[1] and read.lastindex and address[1] != read[1]):
                continue
            if (out_pin == "DPO") != pin.startswith("DPRA") and "DPO" in cell.pins:
                continue
            for bit in bits:
                for out in outs:
                    yield bit, out, 1


def _clocked(cell: Cell, kind: Kind) -> Iterator[tuple[Bit, int]]:
    """Outputs of flip-flops and RAM blocks."""
    for pin in cell.outputs & cell.pins.keys():
        levels = 0
        if kind in (Kind.BRAM, Kind.URAM):
            side = "B" if "B" in pin else "A"
            register = f"DO{side}_REG" if kind is Kind.BRAM else f"OREG_{side}"
            levels = 0 if cell.parameter(register) else RAM_ACCESS_LEVELS
        for bit in cell.pins[pin]:
            yield bit, levels


_FACTORS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"A": ("AREG", "ADREG"), "B": ("BREG",), "D": ("DREG", "ADREG"), "ACIN": ("AREG",), "BCIN": ("BREG",)}
)
"""Pins of a DSP slice in front of its multiplier, each with the registers that may lie between."""
_SUMMANDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"C": ("CREG",), "PCIN": (), "CARRYIN": (), "CARRYCASCIN": ()}
)


def _dsp(cell: Cell) -> Arcs:
    """A DSP slice: multiplier, M register, adder, P register, with registers at the inputs; each may be absent."""
    after_product, after_sum = cell.parameter("MREG"), cell.parameter("PREG")
    ends: list[tuple[Bit, int]] = []
    loose: list[tuple[Bit, int]] = []  # inputs without a register before P, with their levels to P
    starts = [ADDER_LEVELS] if after_product else []  # levels to P from each register
    inside = 0
    for pin, bits in cell.pins.items():
        if pin in cell.outputs or pin == "CLK" or not any(isinstance(bit, int) for bit in bits):
            continue
        factor = pin in _FACTORS
        registers = _FACTORS.get(pin) or _SUMMANDS.get(pin)
        to_sum = ADDER_LEVELS if not factor else MULTIPLIER_LEVELS + (0 if after_product else ADDER_LEVELS)
        if registers is None:  # controls
            ends += [(bit, 0) for bit in bits]
        elif any(map(cell.parameter, registers)):
            ends += [(bit, 0) for bit in bits]
            inside = max(inside, to_sum if after_sum or (factor and after_product) else 0)
            starts += [] if factor and after_product else [to_sum]
        elif after_sum or (factor and after_product):
            ends += [(bit, to_sum) for bit in bits]
        else:
            loose += [(bit, to_sum) for bit in bits]
    outputs = list(_outputs(cell))
    if after_sum:
        return Arcs(tuple((bit, 0) for bit in outputs), (), tuple(ends), max([inside, *starts]))
    first = tuple((bit, max(starts)) for bit in outputs) if starts else ()
    return Arcs(first, tuple((bit, out, levels) for bit, levels in loose for out in outputs), tuple(ends), inside)
