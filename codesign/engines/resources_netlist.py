# SPDX-License-Identifier: Apache-2.0
"""Reads the mapped netlist of one unit (Yosys' JSON): how many primitives, and the longest paths between its ends.

The ends of paths are registers, the unit's ports, and the pins of its black boxes, port by port. What this says about
a unit does not depend on what is in its black boxes; resources_paths.py puts units together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from pydantic import BaseModel, ConfigDict

from codesign.engines.resources_primitives import Bit, Cell, Kind, arcs, primitive
from codesign.engines.resources_units import UNIT
from codesign.errors import CheckError


class _Port(BaseModel):
    model_config = ConfigDict(frozen=True)
    direction: str
    bits: list[Bit]


class _Cell(BaseModel):
    model_config = ConfigDict(frozen=True)
    type: str
    parameters: dict[str, str] = {}
    port_directions: dict[str, str] = {}
    connections: dict[str, list[Bit]]


class _Net(BaseModel):
    model_config = ConfigDict(frozen=True)
    hide_name: int
    bits: list[Bit]
    offset: int = 0


class _Module(BaseModel):
    model_config = ConfigDict(frozen=True)
    ports: dict[str, _Port]
    cells: dict[str, _Cell]
    netnames: dict[str, _Net]


class _Netlist(BaseModel):
    model_config = ConfigDict(frozen=True)
    modules: dict[str, _Module]


@dataclass(frozen=True, order=True)
class End:
    """Where paths start or stop: the registers inside (both empty), a port of the unit, or a port of a black box."""

    instance: str = ""
    port: str = ""


REGISTERS = End()


@dataclass(frozen=True)
class Longest:
    """The longest path from one end to another: its levels, and the nets at which it starts and stops."""

    source: End
    sink: End
    levels: int
    first: str
    last: str


@dataclass(frozen=True, order=True)
class Box:
    """An instance of a black box."""

    instance: str
    module: str


@dataclass(frozen=True)
class Summary:
    """What is kept of a unit's netlist."""

    primitives: tuple[tuple[str, int], ...]
    ff_after_block: int
    """Flip-flops that do nothing but delay an output of a RAM or DSP block; Vivado takes them into the block."""
    lut_before_dsp: int
    """LUTs of adders that feed nothing but a factor of a DSP slice; Vivado takes them into its pre-adder."""
    boxes: tuple[Box, ...]
    paths: tuple[Longest, ...]


@dataclass
class _Graph:
    """A netlist as paths see it, while it is built."""

    arrivals: defaultdict[Bit, list[tuple[Bit, int]]] = field(default_factory=lambda: defaultdict(list))
    """For each net the nets it depends on within the cycle, with levels."""
    starts: dict[Bit, tuple[End, int, str]] = field(default_factory=dict)
    """For each net that leaves an end: that end, levels from it, and a name."""
    stops: list[tuple[Bit, End, int, str]] = field(default_factory=list)
    """Net, end, levels from the net to there, name of what is there."""
    inside: list[tuple[int, str]] = field(default_factory=list)
    """Levels between two registers of one cell, and its name."""


_Sources = Mapping[End, tuple[int, str]]
"""For each end from which a net is reached: the most levels, and the name of the net at that end."""


def summarise(netlist: bytes, boxes: frozenset[str]) -> Summary:
    """What a unit's mapped netlist (of `write_json`) holds; `boxes`: the modules that are black boxes.

    Raises CheckError for an unknown primitive or a combinational loop.
    """
    module = _Netlist.model_validate_json(netlist).modules[UNIT]
    named = [(name, cell) for name, cell in module.cells.items() if cell.type in boxes]
    cells = [_primitive_cell(name, cell) for name, cell in module.cells.items() if cell.type not in boxes]
    names = _names(module)
    readers = _readers(module, cells)
    graph = _graph(cells, names)
    _add_ports(graph, module)
    _add_boxes(graph, named)
    return Summary(
        primitives=tuple(sorted(Counter(cell.kind for cell in cells).items())),
        ff_after_block=_ff_after_block(cells, readers),
        lut_before_dsp=_lut_before_dsp(cells, readers),
        boxes=tuple(sorted(Box(name, cell.type) for name, cell in named)),
        paths=tuple(_longest(graph)),
    )


def _primitive_cell(name: str, cell: _Cell) -> Cell:
    outputs = frozenset(pin for pin, direction in cell.port_directions.items() if direction == "output")
    return Cell(name, cell.type, cell.parameters, cell.connections, outputs)


def _names(module: _Module) -> dict[Bit, str]:
    """The shortest name that the source has for a net; other nets are left out."""
    names: dict[Bit, str] = {}
    for name, net in sorted(module.netnames.items(), key=lambda one: (len(one[0]), one[0])):
        if not net.hide_name:
            for place, bit in enumerate(net.bits):
                names.setdefault(bit, name if len(net.bits) == 1 else f"{name}[{place + net.offset}]")
    return names


def _graph(cells: list[Cell], names: Mapping[Bit, str]) -> _Graph:
    graph = _Graph()
    carry_out = frozenset(
        bit for cell in cells if primitive(cell.kind).kind is Kind.CARRY for bit in cell.pins.get("CO", [])
    )
    for cell in cells:
        found = arcs(cell, carry_out)
        here = _place(cell, names)
        for bit, levels in found.starts:
            graph.starts[bit] = (REGISTERS, levels, names.get(bit, here))
        for bit, out, levels in found.passes:
            graph.arrivals[out].append((bit, levels))
        graph.stops += [(bit, REGISTERS, levels, here) for bit, levels in found.ends]
        if found.inside:
            graph.inside.append((found.inside, here))
    return graph


def _place(cell: Cell, names: Mapping[Bit, str]) -> str:
    """What a reader calls the cell: a register by what it drives, anything else by its instance and type."""
    if primitive(cell.kind).kind is Kind.REGISTER and cell.pins["Q"][0] in names:
        return names[cell.pins["Q"][0]]
    parts = cell.name.replace("$flatten", "").replace("\\", "").split(".")
    kind = "DSP48E2" if primitive(cell.kind).kind is Kind.DSP else cell.kind
    return ".".join([*takewhile(lambda part: not part.startswith("$"), parts), kind])


def _add_ports(graph: _Graph, module: _Module) -> None:
    for name, port in module.ports.items():
        for bit in port.bits:
            if port.direction == "input":
                graph.starts[bit] = (End("", name), 0, name)
            else:
                graph.stops.append((bit, End("", name), 0, name))


def _add_boxes(graph: _Graph, boxes: list[tuple[str, _Cell]]) -> None:
    for name, cell in boxes:
        for pin, bits in cell.connections.items():
            end = End(name, pin)
            for bit in bits:
                if cell.port_directions[pin] == "output":
                    graph.starts[bit] = (end, 0, f"{name}.{pin}")
                else:
                    graph.stops.append((bit, end, 0, f"{name}.{pin}"))


def _longest(graph: _Graph) -> Iterator[Longest]:
    known: dict[Bit, _Sources] = {}
    best: dict[tuple[End, End], tuple[int, str, str]] = {}
    found = [
        (source, end, depth + levels, first, name)
        for bit, end, levels, name in graph.stops
        if isinstance(bit, int)
        for source, (depth, first) in _sources(graph, bit, known).items()
    ]
    found += [(REGISTERS, REGISTERS, levels, name, name) for levels, name in graph.inside]
    for source, sink, levels, first, last in found:
        if (source, sink) not in best or best[source, sink][0] < levels:
            best[source, sink] = (levels, first, last)
    for (source, sink), (levels, first, last) in sorted(best.items()):
        yield Longest(source, sink, levels, first, last)


def _sources(graph: _Graph, bit: Bit, known: dict[Bit, _Sources]) -> _Sources:
    """From where `bit` is reached; depth first without recursion, for chains may be long."""
    stack, waiting = [bit], set[Bit]()
    while stack:
        here = stack[-1]
        before = graph.arrivals.get(here, ())
        missing = [one for one, _ in before if one not in known and isinstance(one, int)] if here not in known else []
        if missing and here in waiting:
            raise CheckError(f"no path may lead back to itself without a register, and one of {len(waiting)} nets does")
        if missing:
            waiting.add(here)
            stack += missing
            continue
        stack.pop()
        if here not in known:
            known[here] = _merged(graph, here, known)
    return known[bit]


def _merged(graph: _Graph, bit: Bit, known: Mapping[Bit, _Sources]) -> _Sources:
    """The sources of a net from those of the nets it depends on."""
    found: dict[End, tuple[int, str]] = {}
    if bit in graph.starts:
        end, levels, name = graph.starts[bit]
        found[end] = (levels, name)
    for before, levels in graph.arrivals.get(bit, ()):
        for end, (depth, first) in known.get(before, {}).items():
            if end not in found or found[end][0] < depth + levels:
                found[end] = (depth + levels, first)
    return found


_Readers = Mapping[Bit, frozenset[str]]
"""For each net the cells that read it; the unit's outputs read as a cell without a name."""


def _readers(module: _Module, cells: list[Cell]) -> _Readers:
    readers: defaultdict[Bit, set[str]] = defaultdict(set)
    inside = {cell.name for cell in cells}
    for cell in cells:
        for pin, bits in cell.pins.items():
            if pin not in cell.outputs:
                for bit in bits:
                    readers[bit].add(cell.name)
    outside = [port.bits for port in module.ports.values() if port.direction != "input"]
    outside += [bits for name, cell in module.cells.items() if name not in inside for bits in cell.connections.values()]
    for bits in outside:
        for bit in bits:
            readers[bit].add("")
    return {bit: frozenset(names) for bit, names in readers.items()}


def _ff_after_block(cells: list[Cell], readers: _Readers) -> int:
    blocks = {
        bit
        for cell in cells
        if primitive(cell.kind).kind in (Kind.BRAM, Kind.URAM, Kind.DSP)
        for pin in cell.outputs & cell.pins.keys()
        for bit in cell.pins[pin]
    }
    registers = (cell for cell in cells if primitive(cell.kind).kind is Kind.REGISTER)
    return sum(cell.pins["D"][0] in blocks and readers[cell.pins["D"][0]] == {cell.name} for cell in registers)


def _lut_before_dsp(cells: list[Cell], readers: _Readers) -> int:
    """Yosys packs pre-adders of up to 25 bits only, those of a DSP48E1; a DSP48E2 has 27."""
    drivers = {bit: cell for cell in cells for pin in cell.outputs & cell.pins.keys() for bit in cell.pins[pin]}
    total = 0
    for dsp in cells:
        if primitive(dsp.kind).kind is Kind.DSP and not dsp.parameter("USE_DPORT"):
            taken = _adder_before(dsp, drivers, readers)
            if any(cell.kind.startswith("CARRY") for cell in taken):
                total += sum(primitive(cell.kind).kind is Kind.LUT for cell in taken)
    return total


def _adder_before(dsp: Cell, drivers: Mapping[Bit, Cell], readers: _Readers) -> list[Cell]:
    """Carry chains in front of factor A and LUTs of up to two inputs before those, if nothing else reads them."""
    taken: dict[str, Cell] = {dsp.name: dsp}
    bits = list(dsp.pins.get("A", []))
    grown = True
    while grown:
        grown = False
        for cell in {drivers[bit].name: drivers[bit] for bit in bits if bit in drivers}.values():
            outputs = [bit for pin in cell.outputs & cell.pins.keys() for bit in cell.pins[pin]]
            fitting = cell.kind in ("LUT1", "LUT2", "INV", "CARRY4", "CARRY8")
            if (
                cell.name not in taken
                and fitting
                and all(readers.get(bit, frozenset()) <= taken.keys() for bit in outputs)
            ):
                taken[cell.name] = cell
                bits += [bit for pin, pins in cell.pins.items() if pin not in cell.outputs for bit in pins]
                grown = True
    return [cell for name, cell in taken.items() if name != dsp.name]
