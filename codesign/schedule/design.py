# SPDX-License-Identifier: Apache-2.0
"""The sized machine and what runs on it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import Enum

import numpy as np

from codesign.errors import InputError
from codesign.schedule.board import Board
from codesign.schedule.isa import BEAT_BITS, BEAT_BYTES, GRANULE, ISA_VERSION, RECORD_BITS, Instruction, Unit, Width

MIN_FIFO_BLOCKS = 32
MIN_SLOTS = 8
"""Cycles that a weight tile of few rows takes at least: from a row's partial sums being read to their being written."""
READER_BEATS, READER_BURSTS = 512, 16
"""Beats in the FIFO of a port that reads, and the bursts that it has under way."""
MAX_ADDRESS_BITS = 16
"""Word addresses of ACT and RES are instruction fields of 16 bits."""


class MemoryKind(Enum):
    """The primitive a memory is built of."""

    BRAM = "bram"
    URAM = "uram"


@dataclass(frozen=True)
class MachineSize:
    """Every parameter that shapes the hardware. `simd`: input columns, `pe`: output rows of the MAC array."""

    simd: int
    pe: int
    ports: int
    """AXI masters that the stream is striped over."""
    act_words: int
    """Depth of the activation memory, words of `simd` int8, a spare word at the end included."""
    res_words: int
    """Depth of the residual memory, words of `pe` int16."""
    max_rows: int
    """Most token rows one instruction may have."""
    key_words: int
    """Words of `simd` keys in one row of the score memory: ceil(max keys / simd)."""
    max_experts: int
    acc_bits: int
    """Signed accumulator width, derived from the graph's ranges, weights aligned to the top of 8 bits."""
    norm_dim_max: int
    max_instructions: int
    fifo_blocks: int
    """Depth of the block FIFO, a power of two."""
    act_memory: MemoryKind = MemoryKind.BRAM
    score_memory: MemoryKind = MemoryKind.BRAM
    fifo_memory: MemoryKind = MemoryKind.BRAM

    def __post_init__(self) -> None:
        if self.simd not in (16, 32, 64) or self.pe % GRANULE or not 0 < self.pe <= self.simd:
            raise InputError(
                f"simd must be 16, 32 or 64 and pe a multiple of {GRANULE} up to simd, not simd={self.simd}"
                f" pe={self.pe}; choose for example simd=64 pe=48"
            )
        if self.ports not in (1, 2, 4) or self.pe * self.simd % (BEAT_BITS * self.ports):
            raise InputError(
                f"ports must be 1, 2 or 4 and divide the {self.pe * self.simd // BEAT_BITS} beats of a block,"
                f" not {self.ports}; choose fewer ports"
            )
        if self.fifo_blocks < MIN_FIFO_BLOCKS or self.fifo_blocks & (self.fifo_blocks - 1):
            raise InputError(
                f"fifo_blocks must be a power of two from {MIN_FIFO_BLOCKS}, not {self.fifo_blocks}; give it room"
            )
        queues = self.max_experts * (self.max_rows + 1)
        for name, words in (("act_words", self.act_words), ("res_words", self.res_words), ("expert queues", queues)):
            if not 0 < words <= 1 << MAX_ADDRESS_BITS:
                raise InputError(
                    f"{name} must fit {MAX_ADDRESS_BITS} address bits, not {words} words; tile over fewer tokens"
                )

    @property
    def macs(self) -> int:
        """Multiply-accumulates per clock cycle of the array."""
        return self.simd * self.pe

    @property
    def line_bytes(self) -> int:
        """Bytes of a line: one beat of every port."""
        return self.ports * BEAT_BYTES

    @property
    def block_bytes(self) -> int:
        """Bytes of a block."""
        return self.pe * self.simd // 8

    @property
    def block_lines(self) -> int:
        """Lines of a block."""
        return self.block_bytes // self.line_bytes

    @property
    def act_beats(self) -> int:
        """Beats of one activation word."""
        return self.simd * 8 // BEAT_BITS

    @property
    def res_beats(self) -> int:
        """Beats of one residual word."""
        return self.pe * 16 // BEAT_BITS

    @property
    def block_act_words(self) -> int:
        """Activation words in one block."""
        return self.pe // 8

    @property
    def block_res_words(self) -> int:
        """Residual words in one block."""
        return self.simd // 16

    @property
    def record_blocks(self) -> int:
        """Blocks of the parameter records of one tile of `pe` channels."""
        return RECORD_BITS // self.simd

    def dense_blocks(self, n_tiles: int, k_words: int, planes: int) -> int:
        """Blocks of a dense stream."""
        return n_tiles * (self.record_blocks + k_words * planes)

    def hash32(self) -> int:
        """Identifies the hardware: 32 bits of SHA-256 over its parameters and the instruction set's version."""
        text = json.dumps({"isa_version": ISA_VERSION, **asdict(self)}, sort_keys=True, default=str)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@dataclass(frozen=True)
class Step:
    """One macro-instruction with what a person wants to know about it."""

    name: str
    instruction: Instruction
    macs: int = 0
    """Multiply-accumulates the model needs here; for experts, over all tokens and their top_k experts."""


@dataclass(frozen=True)
class Stored:
    """Where a Program's STORE puts rows `first_row` .. of a tensor in the output buffer.

    They are `rows` rows of `row_elements` elements, of which the first `columns` are meaningful.
    """

    tensor: str
    unit: Unit
    line: int
    first_row: int
    rows: int
    columns: int
    row_elements: int
    step: int
    """Index of the step that wrote the tensor (not of its STORE)."""


@dataclass(frozen=True)
class Program:
    """The macro-instructions of one task, their place in the memory image, and what they leave in the output buffer."""

    steps: tuple[Step, ...]
    addr: int
    """Line in the memory image."""
    output_lines: int
    stored: tuple[Stored, ...]


@dataclass(frozen=True)
class TaskPrograms:
    """The two Programs of a task at an expert width: `plain` stores the result, `traced` every materialised tensor."""

    task: str
    width: Width
    """How many planes of its experts it reads."""
    plain: Program
    traced: Program

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(step.macs for step in self.plain.steps)


@dataclass(frozen=True)
class Design:
    """A sized machine, its memory image and its programs."""

    size: MachineSize
    board: Board
    memory: bytes
    """The memory image (constants, weights, programs) in line order, whole lines; `striped` is its form in DRAM."""
    tasks: tuple[TaskPrograms, ...]
    input_row_bytes: int
    """Bytes of one patch in the input buffer, zero padded."""
    input_lines: int

    def __post_init__(self) -> None:
        if len(self.memory) % self.size.line_bytes:
            raise InputError(
                f"memory image must be whole {self.size.line_bytes}-byte lines, not {len(self.memory)} bytes"
            )


def striped(data: bytes, ports: int) -> bytes:
    """Line-ordered data (whole lines) as the machine's DRAM holds them: stripe after stripe (docs/machine.md, "Ports").

    The stripe distance is `len(data) // ports`. `unstriped` is the inverse.
    """
    beats = np.frombuffer(data, dtype=np.uint8).reshape(-1, ports, BEAT_BYTES)
    return beats.transpose(1, 0, 2).tobytes()


def unstriped(data: bytes, ports: int) -> bytes:
    """The inverse of `striped`."""
    beats = np.frombuffer(data, dtype=np.uint8).reshape(ports, -1, BEAT_BYTES)
    return beats.transpose(1, 0, 2).tobytes()
