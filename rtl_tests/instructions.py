# SPDX-License-Identifier: Apache-2.0
"""Random instructions for a machine: legal ones, and ones that are broken in one place or two."""

from __future__ import annotations

import random
from dataclasses import replace

from codesign.schedule.design import MachineSize
from codesign.schedule.isa import FIELDS, MAX_WIDTHS, PLANES, Instruction, Opcode, Post, Space, Unit, WeightFormat

INSTRUCTION_BYTES = 64


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


class Maker:
    """Legal instructions whose every field comes up to its limits; `rng` decides."""

    def __init__(self, size: MachineSize, rng: random.Random) -> None:
        self.size, self.rng = size, rng

    def _upto(self, high: int, low: int = 1) -> int:
        """low..high, the ends and small numbers often."""
        if high <= low:
            return low
        return self.rng.choice((low, high, self.rng.randint(low, high), self.rng.randint(low, min(high, low + 4))))

    def _area(self, rows: int, width: int, room: int) -> tuple[int, int] | None:
        """(base, stride) of `rows` rows of `width` words in `room` words, None when they do not fit."""
        if width > 0xFFFF or rows * width > room:
            return None
        stride = self._upto(min(room // rows, 0xFFFF), width)
        return min(self._upto(room - rows * stride, 0), 0xFFFF), stride

    def _act(self, rows: int, width: int) -> tuple[int, int] | None:
        return self._area(rows, width, self.size.act_words - 1)

    def _res(self, rows: int, width: int) -> tuple[int, int] | None:
        return self._area(rows, width, self.size.res_words)

    def _act_width(self, n_tiles: int) -> int:
        return _ceil(n_tiles * self.size.pe, self.size.simd)

    def legal(self, opcode: Opcode) -> Instruction:
        """A legal instruction of that kind. Tries until the areas fit."""
        while True:
            made = self._try(opcode)
            if made is not None:
                return made

    def _try(self, opcode: Opcode) -> Instruction | None:
        if opcode in (Opcode.LOAD, Opcode.STORE):
            return self._transfer(opcode)
        if opcode is Opcode.ATTENTION:
            return self._attention()
        if opcode is Opcode.NORM:
            return self._norm()
        if opcode is Opcode.EXPERTS:
            return self._experts()
        return self._dense(opcode)

    def _transfer(self, opcode: Opcode) -> Instruction | None:
        size, rng = self.size, self.rng
        load = opcode is Opcode.LOAD
        unit = rng.choice((Unit.ACT, Unit.RES) if load else tuple(Unit))
        depth = {
            Unit.ACT: size.act_words,
            Unit.RES: size.res_words,
            Unit.QUEUE: _ceil(size.max_experts * (size.max_rows + 1), 4) * 4,
        }[unit]
        words = self._upto(depth)
        if unit is Unit.QUEUE:
            words = max(4, words // 4 * 4)
        base = min(self._upto(depth - words, 0), 0xFFFF)
        per_block = size.block_act_words if unit is Unit.ACT else size.block_res_words
        return Instruction(
            opcode,
            space=rng.choice(tuple(Space)) if load else Space.OUTPUT,
            unit=unit,
            words=words,
            dst_base=base if load else 0,
            src_base=0 if load else base,
            blocks=_ceil(words, per_block) if load else 0,
            mem_addr=rng.getrandbits(20),
        )

    def _dense(self, opcode: Opcode) -> Instruction | None:
        size, rng = self.size, self.rng
        rows, k_words = self._upto(size.max_rows), self._upto(8)
        n_tiles = 1 if opcode is Opcode.ROUTE else self._upto(8)
        post = rng.choice(tuple(Post)) if opcode is Opcode.LINEAR else Post.INT8
        form = rng.choice(tuple(WeightFormat))
        src = self._act(rows, k_words)
        to_act = post in (Post.INT8, Post.GELU)
        dst = self._act(rows, self._act_width(n_tiles)) if to_act else self._res(rows, n_tiles)
        if src is None or dst is None:
            return None
        if opcode is Opcode.ROUTE:
            dst = (0, 0)
        num_experts = self._upto(size.max_experts) if opcode is Opcode.ROUTE else 0
        return Instruction(
            opcode, post=post, weight_format=form, rows=rows, k_words=k_words, n_tiles=n_tiles,
            src_base=src[0], src_stride=src[1], dst_base=dst[0], dst_stride=dst[1],
            num_experts=num_experts, top_k=self._upto(num_experts) if num_experts else 0,
            blocks=size.dense_blocks(n_tiles, k_words, PLANES[form]), mem_addr=rng.getrandbits(20),
            multiplier=rng.getrandbits(16), shift=rng.randrange(1, 64),
        )  # fmt: skip

    def _attention(self) -> Instruction | None:
        size, rng = self.size, self.rng
        rows, keys = self._upto(size.max_rows), self._upto(size.key_words * size.simd)
        num_heads, dim = self._upto(16), self._upto(200)
        columns = _ceil(num_heads * dim, size.simd)
        q, kv, dst = self._act(rows, columns), self._act(keys, columns), self._act(rows, columns)
        if q is None or kv is None or dst is None or max(rows, keys) * q[1] > size.act_words - 1:
            return None
        room = size.act_words - 1 - keys * q[1]
        return Instruction(
            Opcode.ATTENTION, rows=rows, keys=keys, num_heads=num_heads, dim=dim,
            src_base=q[0], src_stride=q[1], aux_base=min(self._upto(room, 0), 0xFFFF),
            aux2_base=min(self._upto(room, 0), 0xFFFF), dst_base=dst[0], dst_stride=dst[1],
            multiplier=rng.getrandbits(16), shift=rng.randrange(1, 64),
            multiplier2=rng.getrandbits(16), shift2=rng.randrange(1, 64),
        )  # fmt: skip

    def _norm(self) -> Instruction | None:
        size = self.size
        rows, n_tiles = self._upto(size.max_rows), self._upto(size.norm_dim_max // size.pe)
        src, dst = self._res(rows, n_tiles), self._act(rows, self._act_width(n_tiles))
        if src is None or dst is None:
            return None
        return Instruction(
            Opcode.NORM, rows=rows, n_tiles=n_tiles, dim=self._upto(n_tiles * size.pe), src_base=src[0],
            src_stride=src[1], dst_base=dst[0], dst_stride=dst[1], blocks=n_tiles * size.record_blocks,
            shift=self._upto(63), mem_addr=self.rng.getrandbits(20),
        )  # fmt: skip

    def _experts(self) -> Instruction | None:
        size, rng = self.size, self.rng
        rows, num_experts, form = (
            self._upto(size.max_rows),
            self._upto(size.max_experts),
            rng.choice(tuple(WeightFormat)),
        )
        k_words, n_tiles, k_words2, n_tiles2 = (self._upto(6) for _ in range(4))
        src, dst = self._act(rows, k_words), self._res(rows, n_tiles2)
        aux = self._act(rows, max(k_words2, self._act_width(n_tiles)))
        if src is None or dst is None or aux is None:
            return None
        slices = [rng.choice((0, 0, 1, 2)) for _ in range(MAX_WIDTHS)] if form is WeightFormat.INT8 else [0]
        planes = PLANES[form]
        return Instruction(
            Opcode.EXPERTS, weight_format=form, rows=rows, num_experts=num_experts, ahead=self._upto(num_experts, 0),
            k_words=k_words, n_tiles=n_tiles, k_words2=k_words2, n_tiles2=n_tiles2,
            src_base=src[0], src_stride=src[1], aux_base=aux[0], aux_stride=aux[1], dst_base=dst[0], dst_stride=dst[1],
            blocks=size.dense_blocks(n_tiles, k_words, planes) + size.dense_blocks(n_tiles2, k_words2, planes),
            widths=sum(code << (2 * e) for e, code in enumerate(slices)), multiplier=rng.getrandbits(16),
            shift=rng.randrange(1, 64), mem_addr=rng.getrandbits(20),
        )  # fmt: skip


def encode_fields(values: dict[str, int]) -> bytes:
    """The bytes of an instruction with any field values; `reserved` are the bits above the last field."""
    word, lsb = 0, 0
    for name, width in FIELDS:
        word |= (values[name] & ((1 << width) - 1)) << lsb
        lsb += width
    return (word | values.get("reserved", 0) << lsb).to_bytes(INSTRUCTION_BYTES, "little")


def mutate(instruction: Instruction, rng: random.Random) -> bytes:
    """The instruction with one or two fields changed: by a little, by a bit, to an end of the field, or to noise."""
    values = {name: int(getattr(instruction, name)) for name, _ in FIELDS}
    for _ in range(rng.choice((1, 1, 2))):
        name, width = rng.choice((*FIELDS, ("reserved", INSTRUCTION_BYTES * 8 - sum(w for _, w in FIELDS))))
        top = (1 << width) - 1
        old = values.get(name, 0)
        values[name] = rng.choice(
            (
                min(old + rng.choice((1, 2)), top),
                max(old - rng.choice((1, 2)), 0),
                old ^ (1 << rng.randrange(width)),
                rng.choice((0, top)),
                rng.getrandbits(width),
            )
        )
    return encode_fields(values)


def chained(instruction: Instruction, chain: int) -> Instruction:
    """The instruction with `chain` set."""
    return replace(instruction, chain=chain)
