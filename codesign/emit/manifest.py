# SPDX-License-Identifier: Apache-2.0
"""The bundle's manifest: what a driver or an engine must know (docs/bundle.md). Written here, read by every engine."""

from __future__ import annotations

from enum import Enum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from codesign.schedule import MemoryKind, Width
from codesign.schedule.board import Memory
from codesign.spec import Readout

FORMAT = 2


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorKind(str, Enum):
    """How a tensor lies in the output buffer: rows of elements, or the expert queues that stand for the gates."""

    MATRIX = "matrix"
    QUEUE = "queue"


class Machine(_Model):
    """The fields of `MachineSize`, and the identity the machine reports in its registers."""

    simd: int
    pe: int
    ports: int
    act_words: int
    res_words: int
    max_rows: int
    key_words: int
    max_experts: int
    acc_bits: int
    norm_dim_max: int
    max_instructions: int
    fifo_blocks: int
    act_memory: MemoryKind
    score_memory: MemoryKind
    fifo_memory: MemoryKind
    design_hash: int
    magic: int
    isa_version: int


class RegisterEntry(_Model):
    """One AXI4-Lite register."""

    name: str
    offset: int = Field(ge=0)
    bit_width: Literal[32, 64]
    host_writes: bool


class UnitState(_Model):
    """A field of the `unit_state` register, from bit 0 upward in the order listed."""

    name: str
    bits: int = Field(gt=0)


class Image(_Model):
    """How an RGB image becomes the input buffer. `row_bytes`: of a patch; `bytes`: of the whole buffer."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: int = Field(gt=0)
    patch: int = Field(gt=0)
    pixel_offset: int
    row_bytes: int = Field(gt=0)
    bytes: int = Field(gt=0)


class MemoryFile(_Model):
    """The memory image's file, in DRAM form: stripe after stripe."""

    file: str
    bytes: int = Field(gt=0)


class BufferTensor(_Model):
    """Rows `first_row` .. of a tensor in the output buffer, from byte `offset` of its line order (docs/bundle.md).

    They are `rows` rows of `row_elements` elements, of which the first `columns` are meaningful.
    """

    tensor: str
    kind: TensorKind
    offset: int = Field(ge=0)
    first_row: int = Field(ge=0)
    rows: int = Field(gt=0)
    columns: int = Field(gt=0)
    row_elements: int = Field(gt=0)
    dtype: Literal["int8", "int16", "uint16"]
    scale: float
    instruction: int = Field(ge=0)
    """Index of the macro-instruction that wrote the tensor."""


class TracedProgram(_Model):
    """The same Program with a STORE after every instruction that writes a tensor."""

    program_addr: int = Field(ge=0)
    num_instructions: int = Field(gt=0)
    output_bytes: int = Field(gt=0)
    tensors: tuple[BufferTensor, ...]


class InstructionInfo(_Model):
    """What a person reads about one macro-instruction of a Program."""

    name: str
    opcode: str
    macs: int = Field(ge=0)
    """Multiply-accumulates the model needs here; for experts, over all tokens and their top_k experts."""
    read_bytes: int = Field(ge=0)
    """Bytes read from DRAM; for experts, of one expert."""


class ExpertWidth(str, Enum):
    """How many bit planes of its experts a Program reads: all that are stored, or the first 4 or 2 of 8."""

    STORED = "stored"
    SLICE4 = "slice4"
    SLICE2 = "slice2"

    @property
    def code(self) -> Width:
        """Its code in an instruction."""
        return Width[self.name]


class Task(_Model):
    """One task at one width of its experts: its Program and where its result lies."""

    name: str
    width: ExpertWidth
    program_addr: int = Field(ge=0)
    num_instructions: int = Field(gt=0)
    output_bytes: int = Field(gt=0)
    macs: int = Field(gt=0)
    result: BufferTensor
    classes: int = Field(gt=0)
    cells: int = Field(gt=0)
    first_row: int = Field(ge=0)
    readout: Readout
    instructions: tuple[InstructionInfo, ...]
    traced: TracedProgram


class FileHash(_Model):
    """SHA-256 of one file of the bundle."""

    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(_Model):
    """The whole manifest."""

    format: Literal[2]
    codesign_version: str
    name: str
    board: str
    part: str
    clock_mhz: float = Field(gt=0)
    machine: Machine
    registers: tuple[RegisterEntry, ...]
    unit_states: tuple[UnitState, ...]
    dram: Memory
    image: Image
    memory: MemoryFile
    tasks: tuple[Task, ...]
    training: str
    """The model's training metrics as a JSON object, `{}` when the model carries none."""
    files: tuple[FileHash, ...]
