# SPDX-License-Identifier: Apache-2.0
"""The machine's instruction set and register map: the single source of every opcode, field position and address.

One instruction is 512 bits (four 128-bit beats). Fields are packed from bit 0 upward in the order of `FIELDS`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

from codesign.errors import InputError

INSTRUCTION_BITS = 512
BEAT_BITS = 128
BEAT_BYTES = BEAT_BITS // 8
BEATS_PER_INSTRUCTION = INSTRUCTION_BITS // BEAT_BITS
GRANULE = 16
"""Lanes of the smallest addressable part of an activation or score word."""
RECORD_BITS = 64
BIAS_BITS, MULTIPLIER_BITS, SHIFT_BITS = 32, 16, 6
"""A per-channel parameter record from bit 0 upward: bias, multiplier (or a NORM's gain), shift, zeros."""


class Opcode(IntEnum):
    """Macro-instructions of the machine (docs/machine.md)."""

    LOAD = 1
    STORE = 2
    LINEAR = 3
    ATTENTION = 4
    NORM = 5
    ROUTE = 6
    EXPERTS = 7


class Post(IntEnum):
    """What a LINEAR does with its accumulators."""

    INT8 = 0
    GELU = 1
    INT16 = 2
    ADD = 3


class WeightFormat(IntEnum):
    """How weights rest in memory: the number of bit planes of a two's complement integer (ternary digits are INT2)."""

    INT8 = 0
    INT4 = 1
    INT2 = 2


PLANES = {WeightFormat.INT8: 8, WeightFormat.INT4: 4, WeightFormat.INT2: 2}


class Width(IntEnum):
    """How many planes of an expert a Program reads: all that are stored, or a slice of the first 4 or 2 of 8."""

    STORED = 0
    SLICE4 = 1
    SLICE2 = 2


SLICE_BITS = {Width.SLICE4: 4, Width.SLICE2: 2}
WIDTH_BITS, MAX_WIDTHS = 2, 32
"""EXPERTS' `widths` field: bits per expert, and how many experts it has room for."""


class Space(IntEnum):
    """Which base register an instruction's memory address is relative to."""

    MEMORY = 0
    INPUT = 1
    OUTPUT = 2


class Unit(IntEnum):
    """The on-chip memory a LOAD writes or a STORE reads."""

    ACT = 0
    RES = 1
    QUEUE = 2


class Status(IntEnum):
    """What the status register says when a run is over."""

    OK = 0
    ILLEGAL_INSTRUCTION = 1
    READ_ERROR = 2
    WRITE_ERROR = 3
    HANG = 4


FIELDS: tuple[tuple[str, int], ...] = (
    ("opcode", 4),
    ("post", 4),
    ("weight_format", 4),
    ("space", 2),
    ("unit", 2),
    ("rows", 16),
    ("k_words", 16),
    ("n_tiles", 16),
    ("k_words2", 16),
    ("n_tiles2", 16),
    ("src_base", 16),
    ("src_stride", 16),
    ("dst_base", 16),
    ("dst_stride", 16),
    ("aux_base", 16),
    ("aux_stride", 16),
    ("aux2_base", 16),
    ("dim", 16),
    ("num_heads", 8),
    ("num_experts", 8),
    ("top_k", 8),
    ("shift", 8),
    ("multiplier", 16),
    ("multiplier2", 16),
    ("shift2", 8),
    ("mem_addr", 32),
    ("blocks", 32),
    ("words", 32),
    ("chain", 4),
    ("fence", 16),
    ("keys", 16),
    ("ahead", 8),
    ("widths", WIDTH_BITS * MAX_WIDTHS),
)
"""Name and width of every instruction field, from bit 0 upward."""


@dataclass(frozen=True)
class Instruction:
    """One macro-instruction. What each opcode reads: docs/machine.md. Addresses in `mem_addr` count lines."""

    opcode: Opcode
    post: Post = Post.INT8
    weight_format: WeightFormat = WeightFormat.INT8
    space: Space = Space.MEMORY
    unit: Unit = Unit.ACT
    rows: int = 0
    k_words: int = 0
    n_tiles: int = 0
    k_words2: int = 0
    n_tiles2: int = 0
    src_base: int = 0
    src_stride: int = 0
    dst_base: int = 0
    dst_stride: int = 0
    aux_base: int = 0
    aux_stride: int = 0
    aux2_base: int = 0
    dim: int = 0
    num_heads: int = 0
    num_experts: int = 0
    top_k: int = 0
    shift: int = 0
    multiplier: int = 0
    multiplier2: int = 0
    shift2: int = 0
    mem_addr: int = 0
    blocks: int = 0
    words: int = 0
    chain: int = 0
    fence: int = 0
    keys: int = 0
    ahead: int = 0
    widths: int = 0

    def width_of(self, expert: int) -> Width:
        """How many planes of that expert EXPERTS reads."""
        return Width((self.widths >> (WIDTH_BITS * expert)) & ((1 << WIDTH_BITS) - 1))

    def blocks_of(self, expert: int, record_blocks: int) -> int:
        """Blocks that EXPERTS reads from DRAM for an expert with tokens."""
        width = self.width_of(expert)
        if width is Width.STORED:
            return self.blocks
        tiles = self.n_tiles * self.k_words + self.n_tiles2 * self.k_words2
        return (self.n_tiles + self.n_tiles2) * record_blocks + tiles * SLICE_BITS[width]

    def encode(self) -> bytes:
        """The 64 bytes of the instruction, little endian. Raises InputError when a field overflows."""
        word = 0
        lsb = 0
        for name, width in FIELDS:
            value = int(getattr(self, name))
            if not 0 <= value < 1 << width:
                raise InputError(
                    f"{self.opcode.name}.{name} must fit {width} bits, not {value!r}; the model exceeds the machine"
                )
            word |= value << lsb
            lsb += width
        return word.to_bytes(INSTRUCTION_BITS // 8, "little")

    @staticmethod
    def decode(data: bytes) -> Instruction:
        """The inverse of `encode`. Raises InputError for an unknown opcode or enum value."""
        word = int.from_bytes(data, "little")
        values = {}
        for name, width in FIELDS:
            values[name] = word & ((1 << width) - 1)
            word >>= width
        try:
            return Instruction(
                opcode=Opcode(values.pop("opcode")),
                post=Post(values.pop("post")),
                weight_format=WeightFormat(values.pop("weight_format")),
                space=Space(values.pop("space")),
                unit=Unit(values.pop("unit")),
                **values,
            )
        except ValueError as error:
            raise InputError(f"an instruction must hold known codes: {error}; regenerate the bundle") from None


assert tuple(name for name, _ in FIELDS) == tuple(f.name for f in fields(Instruction))
assert sum(width for _, width in FIELDS) <= INSTRUCTION_BITS


@dataclass(frozen=True)
class Register:
    """One AXI4-Lite register: byte offset, width (32 or 64 bits) and whether the host writes it."""

    name: str
    offset: int
    bit_width: int
    host_writes: bool
    meaning: str


CTRL_OFFSET, GIER_OFFSET, IER_OFFSET, ISR_OFFSET = 0x00, 0x04, 0x08, 0x0C
CTRL_START, CTRL_DONE, CTRL_IDLE, CTRL_READY = 1, 2, 4, 8

REGISTERS = (
    Register("memory_base", 0x10, 64, True, "physical address of the memory image"),
    Register("input_base", 0x1C, 64, True, "physical address of the input buffer"),
    Register("output_base", 0x28, 64, True, "physical address of the output buffer"),
    Register("memory_stripe", 0x34, 32, True, "bytes between the stripes of the memory image, a multiple of 16"),
    Register("input_stripe", 0x3C, 32, True, "bytes between the stripes of the input buffer, a multiple of 16"),
    Register("output_stripe", 0x44, 32, True, "bytes between the stripes of the output buffer, a multiple of 16"),
    Register("program_addr", 0x4C, 32, True, "where the Program starts in the memory image, in lines"),
    Register("num_instructions", 0x54, 32, True, "instructions to run; 0 only refreshes the registers below"),
    Register("watchdog", 0x5C, 32, True, "cycles without an instruction completing that are a HANG; 0 = never"),
    Register("magic", 0x64, 32, False, "0xC0DE516E"),
    Register("isa_version", 0x74, 32, False, "version of the instruction set"),
    Register("design_hash", 0x84, 32, False, "first 32 bits of the Design's hash, as in the manifest"),
    Register("status", 0x94, 32, False, "Status of the last run"),
    Register("cycles", 0xA4, 32, False, "clock cycles of the last run (0 in C-simulation)"),
    Register("fault", 0xB4, 32, False, "after a status other than OK: index of the oldest incomplete instruction"),
    Register("unit_state", 0xC4, 32, False, "after a status other than OK: states of the units (`UNIT_STATES`)"),
)
"""The `ap_ctrl_hs` block at 0x00..0x0F, then the arguments at offsets both HLS (pragma `offset`) and RTL use."""

UNIT_STATES: tuple[tuple[str, int], ...] = (
    ("dispatcher", 4),
    ("issuer", 4),
    ("array", 4),
    ("norm", 4),
    ("router", 4),
    ("load", 4),
    ("store", 4),
    ("fetch", 4),
)
"""Fields of the `unit_state` register from bit 0 upward; 0 = idle. The RTL's own state numbers (codes of its FSMs)."""

MAGIC = 0xC0DE516E
ISA_VERSION = 2
