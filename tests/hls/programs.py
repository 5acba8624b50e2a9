# SPDX-License-Identifier: Apache-2.0
"""Hand-built Programs for the machine: memory images and layouts straight from docs/machine.md, and a runner."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codesign.schedule import striped, unstriped
from codesign.schedule.design import MachineSize
from codesign.schedule.isa import PLANES, Instruction, Opcode, Space, Unit, WeightFormat
from codesign.schedule.legal import Before, misplaced, violation

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
                out += planes(weight[rows, word * size.simd : (word + 1) * size.simd], PLANES[self.weight_format])
        return bytes(out)


def records(pe: int, bias: Ints, multiplier: Ints, shift: Ints) -> bytes:
    """`pe` parameter records of 64 bits; padding is bias 0, multiplier 0, shift 1."""
    words = np.full(pe, 1 << 48, dtype=np.uint64)
    fields = (bias & 0xFFFFFFFF) | ((multiplier & 0xFFFF) << 32) | (shift << 48)
    words[: len(bias)] = fields.astype(np.uint64)
    return words.astype("<u8").tobytes()


def planes(tile: Ints, count: int) -> bytes:
    """The bit planes of one tile [pe, simd], the most significant first; bit p * simd + s is [p][s]."""
    flat = tile.reshape(-1)
    assert (flat >= -(1 << (count - 1))).all()
    assert (flat < 1 << (count - 1)).all()
    bits = [(flat >> plane) & 1 for plane in reversed(range(count))]
    return b"".join(np.packbits(b.astype(np.uint8), bitorder="little").tobytes() for b in bits)


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
    """One Program with its memory image, input buffer (both in line order) and the tensors it stores."""

    size: MachineSize
    rng: np.random.Generator
    memory: bytearray = field(default_factory=bytearray)
    inputs: bytearray = field(default_factory=bytearray)
    instructions: list[bytes] = field(default_factory=list)
    stored: list[tuple[int, Slot]] = field(default_factory=list)
    output_lines: int = 0
    act_end: int = 0
    res_end: int = 0
    before: Before = field(default_factory=Before)

    def append(self, to: bytearray, data: bytes, unit: int) -> tuple[int, int]:
        """(line, units) of data appended to a space, zero padded to whole units of `unit` bytes."""
        line = len(to) // self.size.line_bytes
        to += data + bytes(-len(data) % unit)
        units = ceil_div(len(data), unit)
        return line, units

    def add(self, data: bytes) -> tuple[int, int]:
        """(mem_addr, blocks) of data appended to the memory image."""
        return self.append(self.memory, data, self.size.block_bytes)

    def emit(self, instruction: Instruction) -> None:
        before = replace(self.before, count=len(self.instructions))  # instructions that are no `Instruction` count, too
        broken = violation(instruction, self.size) or misplaced(instruction, before)
        assert broken is None, f"{broken}: {instruction}"
        self.before = before.then(instruction)
        self.instructions.append(instruction.encode())

    def lanes(self, unit: Unit) -> int:
        return self.size.pe if unit is Unit.RES else self.size.simd

    def slot(self, unit: Unit, rows: int, columns: int, spare: int = 0) -> Slot:
        """A fresh place for a tensor, with room for its last tile's lanes; `spare` words stay free in every row."""
        stride = ceil_div(ceil_div(columns, self.size.pe) * self.size.pe, self.lanes(unit)) + spare
        base = self.res_end if unit is Unit.RES else self.act_end
        slot = Slot(unit, base, stride, rows, columns)
        if unit is Unit.RES:
            self.res_end = slot.end
        else:
            self.act_end = slot.end
        return slot

    def fill(self, slot: Slot, space: Space, line: int, fence: int = 0) -> None:
        """A LOAD of a tensor's words."""
        words = slot.rows * slot.stride
        per_block = self.size.block_res_words if slot.unit is Unit.RES else self.size.block_act_words
        blocks = ceil_div(words, per_block)
        place = Instruction(Opcode.LOAD, space=space, unit=slot.unit, dst_base=slot.base, words=words)
        self.emit(replace(place, mem_addr=line, blocks=blocks, fence=fence))

    def load(self, unit: Unit, x: Ints, space: Space = Space.MEMORY, spare: int = 0, garbage: bool = True) -> Slot:
        """x on the chip. Lanes beyond the last column: garbage in ACT unless not wanted, 0 in RES."""
        slot = self.slot(unit, x.shape[0], x.shape[1], spare)
        lanes, dtype = self.lanes(unit), "<i2" if unit is Unit.RES else "i1"
        words = padded(x, x.shape[0], slot.stride * lanes)
        if unit is Unit.ACT and garbage:
            words[:, x.shape[1] :] = self.rng.integers(-128, 128, (x.shape[0], words.shape[1] - x.shape[1]))
        to = self.inputs if space is Space.INPUT else self.memory
        line, _ = self.append(to, words.astype(dtype).tobytes(), self.size.block_bytes)
        self.fill(slot, space, line)
        return slot

    def store(self, slot: Slot) -> int:
        """The tensor becomes the next of `Result.tensors`. For QUEUE: one row an expert, base and stride in entries.

        Returns its line in the output buffer.
        """
        words = slot.rows * slot.stride
        if slot.unit is Unit.QUEUE:
            words = ceil_div(words, 4) * 4
            beats = words // 4
        else:
            beats = words * (self.size.res_beats if slot.unit is Unit.RES else self.size.act_beats)
        line = self.output_lines
        self.stored.append((line, slot))
        place = Instruction(Opcode.STORE, space=Space.OUTPUT, unit=slot.unit, src_base=slot.base, words=words)
        self.emit(replace(place, mem_addr=line))
        self.output_lines += ceil_div(beats, self.size.ports)
        return line

    def read(self, output: bytes, line: int, slot: Slot) -> Ints:
        dtype = {Unit.ACT: "i1", Unit.RES: "<i2", Unit.QUEUE: "<u4"}[slot.unit]
        row = slot.stride * (1 if slot.unit is Unit.QUEUE else self.lanes(slot.unit))
        values = np.frombuffer(output, dtype=dtype, count=slot.rows * row, offset=line * self.size.line_bytes)
        return values.reshape(slot.rows, row)[:, : slot.columns].astype(np.int64)

    def run(self, program: Path, folder: Path) -> Result:
        """Write the files, run C-simulation once, read the stored tensors back."""
        address, _ = self.append(self.memory, b"".join(self.instructions), self.size.line_bytes)
        (folder / "memory.bin").write_bytes(striped(bytes(self.memory), self.size.ports))
        (folder / "inputs.bin").write_bytes(striped(bytes(self.inputs), self.size.ports))
        output = folder / "outputs.bin"
        lines = self.output_lines + 1  # one that nothing writes
        numbers = (address, len(self.instructions), len(self.inputs), lines * self.size.line_bytes, 1)
        command = [str(program), "memory.bin", "inputs.bin", "outputs.bin", *map(str, numbers)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            assert not output.exists()
            return Result(done.returncode, done.stderr, ())
        data = unstriped(output.read_bytes(), self.size.ports)
        assert not any(data[self.output_lines * self.size.line_bytes :])
        return Result(0, done.stderr, tuple(self.read(data, line, slot) for line, slot in self.stored))
