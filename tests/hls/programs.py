# SPDX-License-Identifier: Apache-2.0
"""Hand-built Programs for the machine: memory images and layouts straight from docs/machine.md, and a runner."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codesign.schedule.design import MachineSize
from codesign.schedule.isa import BEAT_BYTES, Instruction, Opcode, Space, Unit, WeightFormat

Ints = npt.NDArray[np.int64]


def ceil_div(n: int, d: int) -> int:
    return -(-n // d)


def padded(x: Ints, rows: int, columns: int, fill: int = 0) -> Ints:
    """x in the corner of a [rows, columns] array."""
    y = np.full((rows, columns), fill, dtype=np.int64)
    y[: x.shape[0], : x.shape[1]] = x
    return y


@dataclass(frozen=True)
class Dense:
    """A dense layer: weight [N, K], bias [N], and one multiplier and shift per output."""

    weight: Ints
    bias: Ints
    multiplier: Ints
    shift: Ints
    weight_format: WeightFormat = WeightFormat.INT8

    def k_words(self, size: MachineSize) -> int:
        return ceil_div(self.weight.shape[1], size.simd)

    def n_tiles(self, size: MachineSize) -> int:
        return ceil_div(self.weight.shape[0], size.pe)

    def stream(self, size: MachineSize) -> bytes:
        """Records, then weight tiles, of each n tile."""
        n, k = self.n_tiles(size), self.k_words(size)
        weight = padded(self.weight, n * size.pe, k * size.simd)
        out = bytearray()
        for tile in range(n):
            rows = slice(tile * size.pe, (tile + 1) * size.pe)
            out += records(size.pe, self.bias[rows], self.multiplier[rows], self.shift[rows])
            for word in range(k):
                out += weight_bytes(weight[rows, word * size.simd : (word + 1) * size.simd], self.weight_format)
        return bytes(out)


def records(pe: int, bias: Ints, multiplier: Ints, shift: Ints) -> bytes:
    """`pe` parameter records of 64 bits; padding is bias 0, multiplier 0, shift 1."""
    words = np.full(pe, 1 << 48, dtype=np.uint64)
    fields = (bias & 0xFFFFFFFF) | ((multiplier & 0xFFFF) << 32) | (shift << 48)
    words[: len(bias)] = fields.astype(np.uint64)
    return words.astype("<u8").tobytes()


def weight_bytes(tile: Ints, weight_format: WeightFormat) -> bytes:
    """One tile [pe, simd], index p * simd + s, lowest bits first."""
    flat = tile.reshape(-1)
    if weight_format is WeightFormat.INT8:
        return flat.astype(np.int8).tobytes()
    digits = (flat & 3).reshape(-1, 4)
    return bytes((digits << np.array([0, 2, 4, 6])).sum(axis=1).astype(np.uint8).tobytes())


@dataclass(frozen=True)
class Slot:
    """A tensor [rows, columns] on the chip: `stride` words a row from `base`."""

    unit: Unit
    base: int
    stride: int
    rows: int
    columns: int

    @property
    def end(self) -> int:
        return self.base + self.rows * self.stride


@dataclass(frozen=True)
class Result:
    """How a run ended: exit status, standard error, and the stored tensors in order."""

    status: int
    stderr: str
    tensors: tuple[Ints, ...]


@dataclass
class Job:
    """One Program with its memory image, input buffer and the tensors it stores."""

    size: MachineSize
    rng: np.random.Generator
    memory: bytearray = field(default_factory=bytearray)
    inputs: bytearray = field(default_factory=bytearray)
    instructions: list[bytes] = field(default_factory=list)
    stored: list[tuple[int, Slot]] = field(default_factory=list)
    output_beats: int = 0
    act_end: int = 0
    res_end: int = 0

    def add(self, data: bytes) -> tuple[int, int]:
        """(mem_addr, beats) of data appended to the memory image."""
        address = len(self.memory) // BEAT_BYTES
        self.memory += data
        return address, len(data) // BEAT_BYTES

    def emit(self, instruction: Instruction) -> None:
        self.instructions.append(instruction.encode())

    def lanes(self, unit: Unit) -> int:
        return self.size.pe if unit is Unit.RES else self.size.simd

    def slot(self, unit: Unit, rows: int, columns: int, spare: int = 0) -> Slot:
        """A fresh place for a tensor; `spare` words stay free in every row."""
        stride = ceil_div(columns, self.lanes(unit)) + spare
        base = self.res_end if unit is Unit.RES else self.act_end
        slot = Slot(unit, base, stride, rows, columns)
        if unit is Unit.RES:
            self.res_end = slot.end
        else:
            self.act_end = slot.end
        return slot

    def load(self, unit: Unit, x: Ints, space: Space = Space.MEMORY, spare: int = 0) -> Slot:
        """x on the chip. Lanes beyond the last column: garbage in ACT (nothing may read them), 0 in RES."""
        slot = self.slot(unit, x.shape[0], x.shape[1], spare)
        lanes, dtype = self.lanes(unit), "<i2" if unit is Unit.RES else "i1"
        words = padded(x, x.shape[0], slot.stride * lanes)
        if unit is Unit.ACT:
            words[:, x.shape[1] :] = self.rng.integers(-128, 128, (x.shape[0], words.shape[1] - x.shape[1]))
        data = words.astype(dtype).tobytes()
        if space is Space.INPUT:
            address, beats = len(self.inputs) // BEAT_BYTES, len(data) // BEAT_BYTES
            self.inputs += data
        else:
            address, beats = self.add(data)
        count = slot.rows * slot.stride
        place = Instruction(Opcode.LOAD, space=space, unit=unit, dst_base=slot.base, words=count)
        self.emit(replace(place, mem_addr=address, beats=beats))
        return slot

    def store(self, slot: Slot) -> None:
        """The tensor becomes the next of `Result.tensors`. For QUEUE: one row an expert, base and stride in entries."""
        words = slot.rows * slot.stride
        if slot.unit is Unit.QUEUE:
            words = ceil_div(words, 4) * 4
            beats = words // 4
        else:
            beats = words * (self.size.res_beats if slot.unit is Unit.RES else self.size.act_beats)
        self.stored.append((self.output_beats, slot))
        place = Instruction(Opcode.STORE, space=Space.OUTPUT, unit=slot.unit, src_base=slot.base, words=words)
        self.emit(replace(place, mem_addr=self.output_beats))
        self.output_beats += beats

    def read(self, output: bytes, beat: int, slot: Slot) -> Ints:
        dtype = {Unit.ACT: "i1", Unit.RES: "<i2", Unit.QUEUE: "<u4"}[slot.unit]
        row = slot.stride * (1 if slot.unit is Unit.QUEUE else self.lanes(slot.unit))
        values = np.frombuffer(output, dtype=dtype, count=slot.rows * row, offset=beat * BEAT_BYTES)
        return values.reshape(slot.rows, row)[:, : slot.columns].astype(np.int64)

    def run(self, program: Path, folder: Path) -> Result:
        """Write the files, run C-simulation once, read the stored tensors back."""
        address, _ = self.add(b"".join(self.instructions))
        (folder / "memory.bin").write_bytes(self.memory)
        (folder / "inputs.bin").write_bytes(self.inputs)
        output = folder / "outputs.bin"
        numbers = (address, len(self.instructions), len(self.inputs), self.output_beats * BEAT_BYTES, 1)
        command = [str(program), "memory.bin", "inputs.bin", "outputs.bin", *map(str, numbers)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            assert not output.exists()
            return Result(done.returncode, done.stderr, ())
        data = output.read_bytes()
        return Result(0, done.stderr, tuple(self.read(data, beat, slot) for beat, slot in self.stored))
