# SPDX-License-Identifier: Apache-2.0
"""Hand-built Programs for every macro-instruction, and what the functions of `codesign.reference` make of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from bundles import Case

from codesign.reference import functions as f
from codesign.schedule.design import MachineSize
from codesign.schedule.isa import BEAT_BYTES, Instruction, Opcode, Post, Space, Status, Unit, WeightFormat
from codesign.spec import INT8, INT16, Requant
from tests.hls.programs import Dense, Ints, Job, Slot, ceil_div, records

FAR = 0x0FFF_FF00  # beats: an address outside the simulated DRAM


@dataclass
class Builder:
    """Makes cases that share one memory image."""

    size: MachineSize
    rng: np.random.Generator
    memory: bytearray

    def job(self) -> Job:
        return Job(self.size, self.rng, memory=self.memory)

    def int8(self, rows: int, columns: int) -> Ints:
        return self.rng.integers(-128, 128, (rows, columns))

    def int16(self, rows: int, columns: int, peak: int = 8000) -> Ints:
        return self.rng.integers(-peak, peak, (rows, columns))

    def dense(self, outputs: int, inputs: int, form: WeightFormat, peak: int) -> Dense:
        """A random layer whose results for int8 inputs come near `peak`."""
        limit = 2 if form is WeightFormat.TERNARY else 128
        weight = self.rng.integers(-limit + 1, limit, (outputs, inputs))
        sigma = float(np.sqrt(inputs) * 74 * limit / 1.7)
        bias = np.round(self.rng.normal(0, sigma, outputs)).astype(np.int64)
        scales = [Requant.of_scale(float(peak / sigma / 2.5 * v), INT16) for v in self.rng.uniform(0.5, 1.6, outputs)]
        multiplier, shift = (np.array([getattr(s, n)[0] for s in scales]) for n in ("multiplier", "shift"))
        return Dense(weight, bias, multiplier, shift, form)

    def load_store(self, rows: int) -> Case:
        """LOADs of both spaces into both memories, and STOREs of them."""
        job, size = self.job(), self.size
        tensors = [
            (Unit.ACT, Space.MEMORY, self.int8(rows, 2 * size.simd)),
            (Unit.ACT, Space.INPUT, self.int8(rows, size.simd)),
            (Unit.RES, Space.MEMORY, self.int16(rows, 3 * size.pe, 1 << 15)),
            (Unit.RES, Space.INPUT, self.int16(2, size.pe, 1 << 15)),
        ]
        slots = [job.load(unit, x, space) for unit, space, x in tensors]
        for slot in slots:
            job.store(slot)
        return Case("load_store", job, tuple(x for _, _, x in tensors))

    def linear(self, name: str, post: Post, form: WeightFormat, rows: int, inputs: int, outputs: int) -> Case:
        """One LINEAR; with ADD the residual lies below a row that stays as it is."""
        job, size = self.job(), self.size
        layer = self.dense(outputs, inputs, form, {Post.INT8: 127, Post.GELU: 3000}.get(post, 20000))
        x = self.int8(rows, inputs)
        src = job.load(Unit.ACT, x)
        gelu = Requant.of_scale(0.05, INT8)
        acc = f.matmul(x, layer.weight, layer.bias)
        wide = f.requantize(acc, Requant(tuple(layer.multiplier.tolist()), tuple(layer.shift.tolist()), INT16))
        if post in (Post.INT8, Post.GELU):
            dst = job.slot(Unit.ACT, rows, outputs, spare=1)
            expected = f.saturate(wide, INT8) if post is Post.INT8 else f.requantize(f.gelu_fixed(wide), gelu)
        elif post is Post.INT16:
            dst, expected = job.slot(Unit.RES, rows, outputs), wide
        else:
            old = self.int16(rows + 1, outputs, 30000)
            whole = job.load(Unit.RES, old)
            dst = dataclasses.replace(whole, base=whole.base + whole.stride, rows=rows)
            expected = np.concatenate([old[:1], f.saturate(old[1:] + wide, INT16)])
        addr, beats = job.add(layer.stream(size))
        job.emit(
            Instruction(
                Opcode.LINEAR, post=post, weight_format=form, rows=rows,
                k_words=layer.k_words(size), n_tiles=layer.n_tiles(size),
                src_base=src.base, src_stride=src.stride, dst_base=dst.base, dst_stride=dst.stride,
                multiplier=gelu.multiplier[0] if post is Post.GELU else 0,
                shift=gelu.shift[0] if post is Post.GELU else 0,
                mem_addr=addr, beats=beats,
            )
        )  # fmt: skip
        job.store(whole if post is Post.ADD else dst)
        return Case(name, job, (expected,))

    def norm(self, rows: int, dim: int) -> Case:
        """One NORM; a constant row has variance 0."""
        job, size = self.job(), self.size
        x = self.int16(rows, dim) + self.int16(rows, 1)
        x[rows // 2] = 77
        gain, bias = self.rng.integers(-900, 900, dim), self.rng.integers(-200_000, 200_000, dim)
        src, dst = job.load(Unit.RES, x), job.slot(Unit.ACT, rows, dim)
        tiles = ceil_div(dim, size.pe)
        stream = records(tiles * size.pe, bias, gain, np.ones(dim, dtype=np.int64))
        addr, beats = job.add(stream)
        job.emit(
            Instruction(
                Opcode.NORM, rows=rows, dim=dim, n_tiles=tiles, src_base=src.base, src_stride=src.stride,
                dst_base=dst.base, dst_stride=dst.stride, shift=14, mem_addr=addr, beats=beats,
            )
        )  # fmt: skip
        job.store(dst)
        return Case(f"norm_{rows}_{dim}", job, (f.affine(f.normalise(x), gain, bias, 14),))

    def attention(self, rows: int, heads: int, dim: int) -> Case:
        """One ATTENTION; the heads need not begin at words."""
        job = self.job()
        q, k, v = (self.int8(rows, heads * dim) for _ in range(3))
        slots = [job.load(Unit.ACT, x) for x in (q, k, v)]
        dst = job.slot(Unit.ACT, rows, heads * dim)
        score, out = Requant.of_scale(500 / (5500 * dim**0.5), INT16), Requant.of_scale(1.6 * 2.0**-8, INT8)
        job.emit(
            Instruction(
                Opcode.ATTENTION, rows=rows, num_heads=heads, dim=dim,
                src_base=slots[0].base, src_stride=slots[0].stride, aux_base=slots[1].base, aux2_base=slots[2].base,
                dst_base=dst.base, dst_stride=dst.stride,
                multiplier=score.multiplier[0], shift=score.shift[0],
                multiplier2=out.multiplier[0], shift2=out.shift[0],
            )
        )  # fmt: skip
        job.store(dst)
        parts = [slice(h * dim, (h + 1) * dim) for h in range(heads)]
        expected = np.concatenate([f.attention_head(q[:, c], k[:, c], v[:, c], score, out) for c in parts], axis=1)
        return Case(f"attention_{rows}_{heads}_{dim}", job, (expected,))

    def experts(
        self, name: str, rows: int, dim: int, hidden: int, experts: int, top_k: int, form: WeightFormat
    ) -> Case:
        """ROUTE and EXPERTS, the queues and the residual stored; the last expert never has a token."""
        job, size = self.job(), self.size
        x, old = self.int8(rows, dim), self.int16(rows, dim, 20000)
        src, res = job.load(Unit.ACT, x), job.load(Unit.RES, old)
        router = self.dense(experts, dim, WeightFormat.INT8, 700)
        router.bias[-1] = -(1 << 30)
        addr, beats = job.add(router.stream(size))
        job.emit(
            Instruction(
                Opcode.ROUTE, rows=rows, k_words=router.k_words(size), n_tiles=1,
                src_base=src.base, src_stride=src.stride,
                num_experts=experts, top_k=top_k, mem_addr=addr, beats=beats,
            )
        )  # fmt: skip
        gates = f.gates(_requantized(x, router), top_k)
        queues = Slot(Unit.QUEUE, 0, size.max_rows + 1, experts, size.max_rows + 1)
        job.store(queues)
        layers = [(self.dense(hidden, dim, form, 3000), self.dense(dim, hidden, form, 20000)) for _ in range(experts)]
        gelu, mid = Requant.of_scale(0.05, INT8), job.slot(Unit.ACT, rows, hidden)
        streams = [a.stream(size) + b.stream(size) for a, b in layers]
        addr, _ = job.add(b"".join(streams))
        job.emit(
            Instruction(
                Opcode.EXPERTS, weight_format=form, num_experts=experts,
                k_words=layers[0][0].k_words(size), n_tiles=layers[0][0].n_tiles(size),
                k_words2=layers[0][1].k_words(size), n_tiles2=layers[0][1].n_tiles(size),
                src_base=src.base, src_stride=src.stride, aux_base=mid.base, aux_stride=mid.stride,
                dst_base=res.base, dst_stride=res.stride, multiplier=gelu.multiplier[0], shift=gelu.shift[0],
                mem_addr=addr, beats=len(streams[0]) // BEAT_BYTES,
            )
        )  # fmt: skip
        job.store(res)
        y = old.copy()
        for e, (first, second) in enumerate(layers):
            tokens = np.flatnonzero(gates[:, e])
            if tokens.size:
                h = f.requantize(f.gelu_fixed(_requantized(x[tokens], first)), gelu)
                y[tokens] = f.gated_add(y[tokens], _requantized(h, second), gates[tokens, e])
        assert not gates[:, -1].any()
        return Case(name, job, (queue_words(gates, size), y))

    def illegal(self) -> Case:
        """A good LOAD, then opcode 0, then more data that nobody may take."""
        job = self.job()
        job.load(Unit.ACT, self.int8(3, self.size.simd))
        job.instructions.append(bytes(64))
        job.load(Unit.ACT, self.int8(9, self.size.simd))
        return Case("illegal", job, (), Status.ILLEGAL_INSTRUCTION)

    def illegal_after_prefetch(self) -> Case:
        """Opcode 15 while the stream of nothing is under way: the readers are ahead."""
        job = self.job()
        job.load(Unit.ACT, self.int8(3, self.size.simd), Space.INPUT)
        job.instructions.append(bytes([15]) + bytes(63))
        return Case("illegal_15", job, (), Status.ILLEGAL_INSTRUCTION)

    def too_long(self) -> Case:
        """More instructions than the machine stores."""
        job = self.job()
        for _ in range(self.size.max_instructions + 1):
            job.instructions.append(bytes(64))
        return Case("too_long", job, (), Status.ILLEGAL_INSTRUCTION)

    def read_error(self, space: Space) -> Case:
        """A LOAD from outside the DRAM with much behind it that was already asked for."""
        job = self.job()
        words = 40
        beats = words * self.size.act_beats
        job.load(Unit.ACT, self.int8(2, self.size.simd))
        job.emit(Instruction(Opcode.LOAD, space=space, unit=Unit.ACT, mem_addr=FAR, beats=beats, words=words))
        job.load(Unit.ACT, self.int8(9, self.size.simd))
        job.load(Unit.RES, self.int16(9, self.size.pe))
        return Case(f"read_error_{space.name.lower()}", job, (), Status.READ_ERROR)

    def read_error_weights(self) -> Case:
        """A LINEAR whose weights lie outside the DRAM: it computes with what came, then the run ends."""
        case = self.linear("read_error_weights", Post.INT8, WeightFormat.INT8, 9, 40, 70)
        linear = Instruction.decode(case.job.instructions[-2])
        case.job.instructions[-2] = dataclasses.replace(linear, mem_addr=FAR).encode()
        return dataclasses.replace(case, expected=(), status=Status.READ_ERROR)

    def read_error_program(self) -> Case:
        """A Program outside the DRAM."""
        job = self.job()
        job.load(Unit.ACT, self.int8(3, self.size.simd))
        return Case("read_error_program", job, (), Status.READ_ERROR, program_addr=FAR)

    def write_error(self) -> Case:
        """A STORE outside the DRAM."""
        job = self.job()
        slot = job.load(Unit.ACT, self.int8(9, self.size.simd))
        job.emit(
            Instruction(Opcode.STORE, space=Space.OUTPUT, unit=Unit.ACT, src_base=slot.base, words=9, mem_addr=FAR)
        )
        job.load(Unit.ACT, self.int8(9, self.size.simd))
        return Case("write_error", job, (), Status.WRITE_ERROR)


def _requantized(x: Ints, layer: Dense) -> Ints:
    rq = Requant(tuple(layer.multiplier.tolist()), tuple(layer.shift.tolist()), INT16)
    return f.requantize(f.matmul(x, layer.weight, layer.bias), rq)


def queue_words(gates: Ints, size: MachineSize) -> Ints:
    """The queues [experts, max_rows + 1] for gates [rows, experts]; masked where an entry may hold anything."""
    queues = np.ma.masked_all((gates.shape[1], size.max_rows + 1), dtype=np.int64)
    for queue, gate in zip(queues, gates.T, strict=True):
        tokens = np.flatnonzero(gate)
        queue[0] = len(tokens)
        queue[1 : len(tokens) + 1] = tokens | (gate[tokens] << 16)
    return queues
