# SPDX-License-Identifier: Apache-2.0
"""Renders the two generated files that carry every parameter: `codesign_pkg.sv` and `codesign_config.hpp`.

The view handed to the templates is complete: they only loop and substitute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from jinja2 import Environment, PackageLoader, StrictUndefined

from codesign import __version__
from codesign.reference import TABLES, Table
from codesign.reference import tables as t
from codesign.schedule import isa
from codesign.schedule.design import MIN_SLOTS, READER_BEATS, READER_BURSTS, MachineSize, MemoryKind
from codesign.spec import ops


class PassKind(IntEnum):
    """What the unified unit does: a dense layer, a head's scores, a head's mix of values, or drops blocks unused."""

    DENSE = 0
    SCORE = 1
    MIX = 2
    DROP = 3


class PassPost(IntEnum):
    """What the post-processor makes of the accumulators; the first four are `isa.Post`."""

    INT8 = isa.Post.INT8
    GELU = isa.Post.GELU
    INT16 = isa.Post.INT16
    ADD = isa.Post.ADD
    SCORE = 4
    MIX = 5
    LOGITS = 6
    GATED = 7


class RowSource(IntEnum):
    """Whose progress the rows of a pass wait for: nobody's, the pass before's, or the norm unit's."""

    READY = 0
    PASS = 1
    NORM = 2


@dataclass(frozen=True)
class _Member:
    name: str
    value: int


@dataclass(frozen=True)
class _Enum:
    name: str
    cpp_name: str
    bits: int
    members: tuple[_Member, ...]


@dataclass(frozen=True)
class _Field:
    name: str
    cpp_name: str
    lsb: int
    width: int


@dataclass(frozen=True)
class _RegisterView:
    name: str
    macro: str
    offset: int


@dataclass(frozen=True)
class _TableView:
    name: str
    width: int
    bits: int
    length: int
    hex: str
    rows: tuple[str, ...]


def camel(name: str) -> str:
    """`num_heads` -> `NumHeads`."""
    return "".join(part.capitalize() for part in name.split("_"))


def _enum_view(enum: type[IntEnum], prefix: str, bits: int) -> _Enum:
    members = tuple(_Member(prefix + camel(m.name.lower()), int(m)) for m in enum)
    snake = "".join("_" + c.lower() if c.isupper() else c for c in enum.__name__).lstrip("_")
    return _Enum(f"{snake}_t", enum.__name__, bits, members)


def _enums() -> tuple[_Enum, ...]:
    width = dict(isa.FIELDS)
    return (
        _enum_view(isa.Opcode, "Op", width["opcode"]),
        _enum_view(isa.Space, "Space", width["space"]),
        _enum_view(isa.Unit, "Unit", width["unit"]),
        _enum_view(isa.Status, "Status", 3),
        _enum_view(isa.WeightFormat, "Weight", width["weight_format"]),
        _enum_view(isa.Width, "Width", isa.WIDTH_BITS),
        _enum_view(PassKind, "Kind", 2),
        _enum_view(RowSource, "Rows", 2),
        _enum_view(PassPost, "Post", width["post"]),
    )


def _fields() -> tuple[_Field, ...]:
    views, lsb = [], 0
    for name, width in isa.FIELDS:
        views.append(_Field(name, "Field" + camel(name), lsb, width))
        lsb += width
    return tuple(views)


def _registers() -> tuple[_RegisterView, ...]:
    block = (
        ("ctrl", isa.CTRL_OFFSET),
        ("gier", isa.GIER_OFFSET),
        ("ier", isa.IER_OFFSET),
        ("isr", isa.ISR_OFFSET),
    )
    views = [_RegisterView("Addr" + camel(n), f"ADDR_{n.upper()}", o) for n, o in block]
    for r in isa.REGISTERS:
        views.append(_RegisterView("Addr" + camel(r.name), f"ADDR_{r.name.upper()}", r.offset))
        if r.bit_width == 64:
            views.append(_RegisterView("Addr" + camel(r.name) + "Hi", f"ADDR_{r.name.upper()}_HI", r.offset + 4))
    return tuple(views)


def _table_view(table: Table) -> _TableView:
    value = sum(v << (i * table.bit_width) for i, v in enumerate(table.values))
    bits = table.bit_width * len(table.values)
    rows = tuple(", ".join(str(v) for v in table.values[i : i + 12]) for i in range(0, len(table.values), 12))
    return _TableView(
        camel(table.name) + "Table", table.bit_width, bits, len(table.values), f"{value:0{(bits + 3) // 4}x}", rows
    )


MEM_LATENCY = 2
"""Cycles from a RAM's address to its data, output register included."""
ACT_LATENCY = MEM_LATENCY + 1
"""Cycles from a window's address to its lanes: the banks, then the rotation."""
BLOCK_LATENCY = MEM_LATENCY + 1
"""Cycles from popping the block FIFO to its data."""


def _clog2(n: int) -> int:
    return max(1, (n - 1).bit_length())


def _sizes(size: MachineSize) -> tuple[tuple[str, int], ...]:
    queue_words = size.max_experts * (size.max_rows + 1)
    return (
        ("Simd", size.simd),
        ("Pe", size.pe),
        ("AccBits", size.acc_bits),
        ("ActWords", size.act_words),
        ("ActAddrBits", _clog2(size.act_words)),
        ("ResWords", size.res_words),
        ("ResAddrBits", _clog2(size.res_words)),
        ("MaxRows", size.max_rows),
        ("RowBits", _clog2(size.max_rows)),
        ("KeyWords", size.key_words),
        ("MaxExperts", size.max_experts),
        ("QueueWords", queue_words),
        ("QueueAddrBits", _clog2(queue_words)),
        ("NormDimMax", size.norm_dim_max),
        ("MaxInstructions", size.max_instructions),
        ("Ports", size.ports),
        ("BlockBits", size.pe * size.simd),
        ("BlockLines", size.block_lines),
        ("FifoBlocks", size.fifo_blocks),
        ("ActInUram", int(size.act_memory is MemoryKind.URAM)),
        ("ScoreInUram", int(size.score_memory is MemoryKind.URAM)),
        ("FifoInUram", int(size.fifo_memory is MemoryKind.URAM)),
        ("MemLatency", MEM_LATENCY),
        ("ActLatency", ACT_LATENCY),
        ("BlockLatency", BLOCK_LATENCY),
        ("MinSlots", MIN_SLOTS),
        ("ReaderBeats", READER_BEATS),
        ("ReaderBursts", READER_BURSTS),
        ("Granule", isa.GRANULE),
        ("ActGranules", size.simd // isa.GRANULE),
        ("PeGranules", size.pe // isa.GRANULE),
        ("GranuleBits", _clog2(size.simd // isa.GRANULE)),
        ("BeatBits", isa.BEAT_BITS),
        ("InstructionBits", isa.INSTRUCTION_BITS),
        ("InstructionBeats", isa.BEATS_PER_INSTRUCTION),
        ("RecordBits", isa.RECORD_BITS),
        ("BiasBits", isa.BIAS_BITS),
        ("MultiplierBits", isa.MULTIPLIER_BITS),
        ("ShiftBits", isa.SHIFT_BITS),
        ("WidthBits", isa.WIDTH_BITS),
        ("ActBeats", size.act_beats),
        ("ResBeats", size.res_beats),
        ("RecordBlocks", size.record_blocks),
        ("BlockActWords", size.block_act_words),
        ("BlockResWords", size.block_res_words),
        ("Log2FractionBits", ops.LOG2_FRACTION_BITS),
        ("ProbabilityMax", ops.PROBABILITY_MAX),
        ("ProbabilityFractionBits", ops.PROBABILITY_FRACTION_BITS),
        ("GateFractionBits", ops.GATE_FRACTION_BITS),
        ("NormFractionBits", ops.NORM_FRACTION_BITS),
        ("GeluDomainBits", t.GELU_DOMAIN_BITS),
        ("GeluSegmentBits", t.GELU_SEGMENT_BITS),
        ("GeluGuardBits", t.GELU_GUARD_BITS),
        ("ReciprocalFractionBits", t.RECIPROCAL_FRACTION_BITS),
        ("RsqrtFractionBits", t.RSQRT_FRACTION_BITS),
    )


def render_template(template: str, view: Mapping[str, object]) -> str:
    """The text of a template of this package; a name missing in `view` is an error, never an empty string."""
    environment = Environment(  # noqa: S701 - the output is source code, not HTML
        loader=PackageLoader("codesign.emit"), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template(template).render(view)


def _render_params(template: str, size: MachineSize) -> str:
    fields = _fields()
    view = {
        "version": __version__,
        "sizes": _sizes(size),
        "magic": isa.MAGIC,
        "isa_version": isa.ISA_VERSION,
        "design_hash": size.hash32(),
        "enums": _enums(),
        "fields": fields,
        "reserved_bits": isa.INSTRUCTION_BITS - sum(f.width for f in fields),
        "registers": _registers(),
        "tables": tuple(_table_view(table) for table in TABLES),
    }
    return render_template(template, view)


def render_sv_package(size: MachineSize) -> str:
    """The text of `codesign_pkg.sv` for a machine of that size."""
    return _render_params("codesign_pkg.sv.j2", size)


def render_hls_config(size: MachineSize) -> str:
    """The text of `codesign_config.hpp` for a machine of that size."""
    return _render_params("codesign_config.hpp.j2", size)
