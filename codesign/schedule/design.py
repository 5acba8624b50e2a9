# SPDX-License-Identifier: Apache-2.0
"""The sized machine and what runs on it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from codesign.errors import InputError
from codesign.schedule.board import Board
from codesign.schedule.isa import BEAT_BITS, BEAT_BYTES, ISA_VERSION, RECORD_BITS, Instruction, Unit

MIN_FIFO_BEATS = 32
"""Two bursts of the AXI readers."""


@dataclass(frozen=True)
class MachineSize:
    """Every parameter that shapes the hardware. `simd`: input columns, `pe`: output rows of the MAC array."""

    simd: int
    pe: int
    act_words: int
    """Depth of the activation memory, words of `simd` int8."""
    res_words: int
    """Depth of the residual memory, words of `pe` int16."""
    max_rows: int
    """Most token rows one instruction may have."""
    key_words: int
    """Words of `simd` keys in one row of the score memory: ceil(max keys / simd)."""
    max_experts: int
    acc_bits: int
    """Signed accumulator width, derived from the graph's ranges."""
    norm_dim_max: int
    max_instructions: int = 256
    fifo_beats: int = 512

    def __post_init__(self) -> None:
        if self.fifo_beats < MIN_FIFO_BEATS:
            raise InputError(
                f"fifo_beats must be at least {MIN_FIFO_BEATS}, not {self.fifo_beats}; give two bursts room"
            )
        if self.simd % 16 or self.simd % self.pe or self.pe % 8 or self.pe < 8:
            raise InputError(
                f"simd must be a multiple of 16 and of pe, and pe a multiple of 8, not simd={self.simd} pe={self.pe};"
                " choose for example simd=32 pe=32"
            )

    @property
    def macs(self) -> int:
        """Multiply-accumulates per clock cycle of the array."""
        return self.simd * self.pe

    @property
    def act_beats(self) -> int:
        """Beats of one activation word."""
        return self.simd * 8 // BEAT_BITS

    @property
    def res_beats(self) -> int:
        """Beats of one residual word."""
        return self.pe * 16 // BEAT_BITS

    @property
    def record_beats(self) -> int:
        """Beats of the parameter records of one tile of `pe` channels."""
        return self.pe * RECORD_BITS // BEAT_BITS

    def tile_beats(self, weight_bits: int) -> int:
        """Beats of one weight tile of `pe` x `simd` weights."""
        return self.pe * self.simd * weight_bits // BEAT_BITS

    def hash32(self) -> int:
        """Identifies the hardware: 32 bits of SHA-256 over its parameters and the instruction set's version."""
        text = json.dumps({"isa_version": ISA_VERSION, **asdict(self)}, sort_keys=True)
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
    """Where a Program's STORE puts a tensor in the output buffer.

    It has `rows` rows of `row_elements` elements, of which the first `columns` are meaningful.
    """

    tensor: str
    unit: Unit
    beat: int
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
    """Beat in the memory image."""
    output_beats: int
    stored: tuple[Stored, ...]


@dataclass(frozen=True)
class TaskPrograms:
    """The two Programs of a task: `plain` stores the result, `traced` every tensor the machine materialises."""

    task: str
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
    """The memory image (constants, weights, programs), a whole number of beats."""
    tasks: tuple[TaskPrograms, ...]
    input_row_bytes: int
    """Bytes of one patch in the input buffer, zero padded."""
    input_beats: int

    def __post_init__(self) -> None:
        if len(self.memory) % BEAT_BYTES:
            raise InputError(f"memory image must be whole {BEAT_BYTES}-byte beats, not {len(self.memory)} bytes")
