# SPDX-License-Identifier: Apache-2.0
"""Hand-built Programs for every macro-instruction, and what the functions of `codesign.reference` make of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from bundles import Case, Fault

from codesign.reference import functions as f
from codesign.schedule.design import MachineSize
from codesign.schedule.isa import (
    PLANES,
    SLICE_BITS,
    WIDTH_BITS,
    Instruction,
    Opcode,
    Post,
    Space,
    Status,
    Unit,
    WeightFormat,
    Width,
)
from codesign.spec import INT8, INT16, IntType, Requant
from tests.hls.programs import Dense, Ints, Job, Slot, ceil_div, records

FAR = 0x0FFF_FF00
"""Lines: an address outside the simulated DRAM."""
GELU = Requant.of_scale(0.05, INT8)
PLAIN = {"multiplier": 0, "shift": 0}


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
        limit = 1 << (PLANES[form] - 1)
        weight = self.rng.integers(-limit, limit, (outputs, inputs))
        sigma = float(np.sqrt(inputs) * 74 * limit / 1.7)
        bias = np.round(self.rng.normal(0, sigma, outputs)).astype(np.int64)
        scales = [Requant.of_scale(float(peak / sigma / 2.5 * v), INT16) for v in self.rng.uniform(0.5, 1.6, outputs)]
        multiplier, shift = (np.array([getattr(s, n)[0] for s in scales]) for n in ("multiplier", "shift"))
        return Dense(weight, bias, multiplier, shift, form)

    # ---- instructions ----

    def add_linear(self, job: Job, layer: Dense, src: Slot, dst: Slot, post: Post, chain: int = 0) -> None:
        addr, blocks = job.add(layer.stream(self.size))
        scale = {"multiplier": GELU.multiplier[0], "shift": GELU.shift[0]} if post is Post.GELU else PLAIN
        job.emit(
            Instruction(
                Opcode.LINEAR, post=post, weight_format=layer.weight_format, rows=src.rows,
                k_words=layer.k_words(self.size), n_tiles=layer.n_tiles(self.size),
                src_base=src.base, src_stride=src.stride, dst_base=dst.base, dst_stride=dst.stride,
                mem_addr=addr, blocks=blocks, chain=chain, **scale,
            )
        )  # fmt: skip

    def add_norm(self, job: Job, src: Slot, dst: Slot, gain: Ints, bias: Ints, chain: int = 0) -> None:
        tiles = ceil_div(len(gain), self.size.pe)
        stream = records(tiles * self.size.pe, bias, gain, np.ones(len(gain), dtype=np.int64))
        addr, blocks = job.add(stream)
        job.emit(
            Instruction(
                Opcode.NORM, rows=src.rows, dim=len(gain), n_tiles=tiles, src_base=src.base, src_stride=src.stride,
                dst_base=dst.base, dst_stride=dst.stride, shift=14, mem_addr=addr, blocks=blocks, chain=chain,
            )
        )  # fmt: skip

    def add_attention(self, job: Job, qkv: list[Slot], dst: Slot, heads: int, score: Requant, out: Requant) -> None:
        q, k, v = qkv
        job.emit(
            Instruction(
                Opcode.ATTENTION, rows=q.rows, keys=k.rows, num_heads=heads, dim=q.columns // heads,
                src_base=q.base, src_stride=q.stride, aux_base=k.base, aux2_base=v.base,
                dst_base=dst.base, dst_stride=dst.stride,
                multiplier=score.multiplier[0], shift=score.shift[0],
                multiplier2=out.multiplier[0], shift2=out.shift[0],
            )
        )  # fmt: skip

    def add_route(self, job: Job, router: Dense, src: Slot, top_k: int, chain: int = 0) -> Slot:
        """Returns the queues."""
        addr, blocks = job.add(router.stream(self.size))
        experts = len(router.weight)
        job.emit(
            Instruction(
                Opcode.ROUTE, weight_format=router.weight_format, rows=src.rows, k_words=router.k_words(self.size),
                n_tiles=1, src_base=src.base, src_stride=src.stride, num_experts=experts, top_k=top_k,
                mem_addr=addr, blocks=blocks, chain=chain,
            )
        )  # fmt: skip
        return Slot(Unit.QUEUE, 0, self.size.max_rows + 1, experts, self.size.max_rows + 1)

    def add_experts(
        self, job: Job, layers: list[tuple[Dense, Dense]], src: Slot, res: Slot, widths: tuple[Width, ...], ahead: int
    ) -> None:
        """Its fence is everything before it: the queues."""
        first, second = layers[0]
        mid = job.slot(Unit.ACT, src.rows, max(first.n_tiles(self.size) * self.size.pe, second.weight.shape[1]))
        streams = [a.stream(self.size) + b.stream(self.size) for a, b in layers]
        addr, blocks = job.add(b"".join(streams))
        job.emit(
            Instruction(
                Opcode.EXPERTS, weight_format=first.weight_format, rows=src.rows, num_experts=len(layers),
                k_words=first.k_words(self.size), n_tiles=first.n_tiles(self.size),
                k_words2=second.k_words(self.size), n_tiles2=second.n_tiles(self.size),
                src_base=src.base, src_stride=src.stride, aux_base=mid.base, aux_stride=mid.stride,
                dst_base=res.base, dst_stride=res.stride, multiplier=GELU.multiplier[0], shift=GELU.shift[0],
                mem_addr=addr, blocks=blocks // len(layers), fence=len(job.instructions), ahead=ahead,
                widths=sum(int(w) << (WIDTH_BITS * e) for e, w in enumerate(widths)),
            )
        )  # fmt: skip

    # ---- cases ----

    def load_store(self, rows: int) -> Case:
        """LOADs of both spaces into both memories, and STOREs of them; one is read back from the output buffer."""
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
        again, (line, first) = job.slot(Unit.ACT, rows, 2 * size.simd), job.stored[0]
        assert first == slots[0]
        job.fill(again, Space.OUTPUT, line, fence=len(job.instructions))
        job.store(again)
        return Case("load_store", job, (*(x for _, _, x in tensors), tensors[0][2]))

    def linear(self, name: str, post: Post, form: WeightFormat, rows: int, inputs: int, outputs: int) -> Case:
        """One LINEAR; with ADD the residual lies below a row that stays as it is."""
        job = self.job()
        layer = self.dense(outputs, inputs, form, {Post.INT8: 127, Post.GELU: 3000}.get(post, 20000))
        x = self.int8(rows, inputs)
        src = job.load(Unit.ACT, x)
        wide = requantized(x, layer)
        if post in (Post.INT8, Post.GELU):
            dst = job.slot(Unit.ACT, rows, outputs, spare=1)
            expected = f.saturate(wide, INT8) if post is Post.INT8 else gelu(wide)
        elif post is Post.INT16:
            dst, expected = job.slot(Unit.RES, rows, outputs), wide
        else:
            old = self.int16(rows + 1, outputs, 30000)
            whole = job.load(Unit.RES, old)
            dst = dataclasses.replace(whole, base=whole.base + whole.stride, rows=rows)
            expected = np.concatenate([old[:1], f.saturate(old[1:] + wide, INT16)])
        self.add_linear(job, layer, src, dst, post)
        job.store(whole if post is Post.ADD else dst)
        return Case(name, job, (expected,))

    def corners(self) -> Case:
        """-128 times -128 in every lane: the array packs two products into one multiplier and may not spill."""
        job, inputs, outputs = self.job(), 3 * self.size.simd, self.size.pe + 1
        x = self.rng.choice(np.array([-128, 127]), (9, inputs))
        x[0], x[1] = -128, 127
        layer = self.dense(outputs, inputs, WeightFormat.INT8, 30000)
        layer.weight[:] = self.rng.choice(np.array([-128, 127]), layer.weight.shape)
        layer.weight[::2] = -128
        src, dst = job.load(Unit.ACT, x), job.slot(Unit.RES, 9, outputs)
        self.add_linear(job, layer, src, dst, Post.INT16)
        job.store(dst)
        return Case("corners", job, (requantized(x, layer),))

    def norm(self, rows: int, dim: int) -> Case:
        """One NORM; a constant row has variance 0."""
        job = self.job()
        x = self.int16(rows, dim) + self.int16(rows, 1)
        x[rows // 2] = 77
        gain, bias = self.gain_and_bias(dim)
        src, dst = job.load(Unit.RES, x), job.slot(Unit.ACT, rows, dim)
        self.add_norm(job, src, dst, gain, bias)
        job.store(dst)
        return Case(f"norm_{rows}_{dim}", job, (f.affine(f.normalise(x), gain, bias, 14),))

    def gain_and_bias(self, dim: int) -> tuple[Ints, Ints]:
        return self.rng.integers(-900, 900, dim), self.rng.integers(-200_000, 200_000, dim)

    def attention(self, rows: int, keys: int, heads: int, dim: int) -> Case:
        """One ATTENTION; the heads need not begin at words, and queries are not as many as keys."""
        job = self.job()
        shapes = ((rows, heads * dim), (keys, heads * dim), (keys, heads * dim))
        q, k, v = (self.int8(*shape) for shape in shapes)
        slots = [job.load(Unit.ACT, x) for x in (q, k, v)]
        dst = job.slot(Unit.ACT, rows, heads * dim)
        score, out = attention_scales(dim)
        self.add_attention(job, slots, dst, heads, score, out)
        job.store(dst)
        expected = attention(q, k, v, heads, score, out)
        return Case(f"attention_{rows}_{keys}_{heads}_{dim}", job, (expected,))

    def experts(
        self,
        name: str,
        rows: int,
        dim: int,
        hidden: int,
        experts: int,
        top_k: int,
        form: WeightFormat,
        widths: tuple[Width, ...] = (),
        ahead: int = 1,
    ) -> Case:
        """ROUTE and EXPERTS, the queues and the residual stored; the last expert never has a token."""
        job = self.job()
        x, old = self.int8(rows, dim), self.int16(rows, dim, 20000)
        # The plane of ones of a slice makes weights of padding, so the lanes beyond the last column must be 0.
        src, res = job.load(Unit.ACT, x, garbage=not widths), job.load(Unit.RES, old)
        router = self.dense(experts, dim, WeightFormat.INT8, 700)
        router.bias[-1] = -(1 << (self.size.acc_bits - 2))
        queues = self.add_route(job, router, src, top_k)
        gates = f.gates(requantized(x, router), top_k)
        job.store(queues)
        layers = [(self.dense(hidden, dim, form, 3000), self.dense(dim, hidden, form, 20000)) for _ in range(experts)]
        self.add_experts(job, layers, src, res, widths, ahead)
        job.store(res)
        assert not gates[:, -1].any()
        expected = expert_outputs(x, old, gates, layers, widths)
        return Case(name, job, (queue_words(gates, self.size), expected))

    def block(self, rows: int, heads: int, dim: int, hidden: int, experts: int) -> Case:
        """An attention block, then one with experts, chained as the scheduler chains them."""
        job, columns = self.job(), heads * dim
        x = self.int8(rows, 40)
        embed = self.dense(columns, 40, WeightFormat.INT8, 9000)
        qkv = [
            self.dense(columns, columns, form, 120)
            for form in (WeightFormat.INT8, WeightFormat.INT4, WeightFormat.INT2)
        ]
        project = self.dense(columns, columns, WeightFormat.INT8, 9000)
        mlp = self.dense(hidden, columns, WeightFormat.INT4, 3000), self.dense(columns, hidden, WeightFormat.INT8, 9000)
        router = self.dense(experts, columns, WeightFormat.INT8, 700)
        layers = [
            (self.dense(hidden, columns, WeightFormat.INT2, 3000), self.dense(columns, hidden, WeightFormat.INT2, 9000))
            for _ in range(experts)
        ]
        norms = [self.gain_and_bias(columns) for _ in range(3)]
        score, out = attention_scales(dim)

        patches = job.load(Unit.ACT, x, Space.INPUT)
        res = job.slot(Unit.RES, rows, columns)
        normed, mixed, *parts = (job.slot(Unit.ACT, rows, columns) for _ in range(5))
        middle = job.slot(Unit.ACT, rows, hidden)
        self.add_linear(job, embed, patches, res, Post.INT16)
        self.add_norm(job, res, normed, *norms[0], chain=1)
        for layer, slot in zip(qkv, parts, strict=True):
            self.add_linear(job, layer, normed, slot, Post.INT8, chain=1)
        self.add_attention(job, parts, mixed, heads, score, out)
        self.add_linear(job, project, mixed, res, Post.ADD, chain=1)
        self.add_norm(job, res, normed, *norms[1], chain=1)
        self.add_linear(job, mlp[0], normed, middle, Post.GELU, chain=1)
        self.add_linear(job, mlp[1], middle, res, Post.ADD, chain=1)
        self.add_norm(job, res, normed, *norms[2], chain=1)
        queues = self.add_route(job, router, normed, 2, chain=1)
        self.add_experts(job, layers, normed, res, (), ahead=1)
        for slot in (mixed, normed, queues, res):
            job.store(slot)

        y = requantized(x, embed)
        n = f.affine(f.normalise(y), *norms[0], 14)
        want_mixed = attention(*(requantized(n, layer, INT8) for layer in qkv), heads, score, out)
        y = f.saturate(y + requantized(want_mixed, project), INT16)
        n = f.affine(f.normalise(y), *norms[1], 14)
        y = f.saturate(y + requantized(gelu(requantized(n, mlp[0])), mlp[1]), INT16)
        n = f.affine(f.normalise(y), *norms[2], 14)
        gates = f.gates(requantized(n, router), 2)
        y = expert_outputs(n, y, gates, layers, ())
        return Case(f"block_{rows}_{columns}", job, (want_mixed, n, queue_words(gates, self.size), y))

    # ---- what must end with an error ----

    def illegal(self) -> Case:
        """A good LOAD, then opcode 0, then more data that nobody may take."""
        job = self.job()
        job.load(Unit.ACT, self.int8(3, self.size.simd))
        job.instructions.append(bytes(64))
        job.load(Unit.ACT, self.int8(9, self.size.simd))
        return Case("illegal", job, (), Status.ILLEGAL_INSTRUCTION, fault=1)

    def illegal_after_prefetch(self) -> Case:
        """Opcode 15 while the stream of nothing is under way: the readers are ahead."""
        job = self.job()
        job.load(Unit.ACT, self.int8(3, self.size.simd), Space.INPUT)
        job.instructions.append(bytes([15]) + bytes(63))
        return Case("illegal_15", job, (), Status.ILLEGAL_INSTRUCTION, fault=1)

    def illegal_field(self) -> Case:
        """A LINEAR whose result would leave ACT, behind a LINEAR that is fine."""
        job = self.linear("", Post.INT8, WeightFormat.INT8, 9, 40, 70).job
        good = Instruction.decode(job.instructions[-2])
        job.instructions[-1] = dataclasses.replace(good, dst_base=self.size.act_words - 2).encode()
        return Case("illegal_field", job, (), Status.ILLEGAL_INSTRUCTION, fault=2)

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
        blocks = ceil_div(words, self.size.block_act_words)
        job.load(Unit.ACT, self.int8(2, self.size.simd))
        job.emit(Instruction(Opcode.LOAD, space=space, unit=Unit.ACT, mem_addr=FAR, blocks=blocks, words=words))
        job.load(Unit.ACT, self.int8(9, self.size.simd))
        job.load(Unit.RES, self.int16(9, self.size.pe))
        return Case(f"read_error_{space.name.lower()}", job, (), Status.READ_ERROR)

    def read_error_weights(self) -> Case:
        """A LINEAR whose weights answer SLVERR in one beat: it computes with what came, or not; the run ends."""
        case = self.linear("read_error_weights", Post.INT8, WeightFormat.INT8, 9, 40, 70)
        return dataclasses.replace(
            case, expected=(), status=Status.READ_ERROR, faults=(self.fault_in(case, "r", "slverr"),)
        )

    def hang(self) -> Case:
        """The weights come long after the watchdog."""
        case = self.linear("hang", Post.INT8, WeightFormat.INT8, 9, 40, 70)
        return dataclasses.replace(
            case, expected=(), status=Status.HANG, fault=1, faults=(self.fault_in(case, "r", "delay:30000"),)
        )

    def fault_in(self, case: Case, access: str, response: str) -> Fault:
        """At the first line of the weights that the next to last instruction reads."""
        line = Instruction.decode(case.job.instructions[-2]).mem_addr
        return Fault(Space.MEMORY, line, access, response)

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

    def write_error_slave(self) -> Case:
        """A STORE of which one line answers SLVERR."""
        job = self.job()
        job.store(job.load(Unit.ACT, self.int8(9, self.size.simd)))
        return Case("write_error_slave", job, (), Status.WRITE_ERROR, faults=(Fault(Space.OUTPUT, 2, "w", "slverr"),))


def requantized(x: Ints, layer: Dense, out_type: IntType = INT16) -> Ints:
    rq = Requant(tuple(layer.multiplier.tolist()), tuple(layer.shift.tolist()), out_type)
    return f.requantize(f.matmul(x, layer.weight, layer.bias), rq)


def gelu(u: Ints) -> Ints:
    return f.requantize(f.gelu_fixed(u), GELU)


def attention_scales(dim: int) -> tuple[Requant, Requant]:
    """Of scores and of the output, for random int8 q, k, v."""
    return Requant.of_scale(500 / (5500 * dim**0.5), INT16), Requant.of_scale(1.6 * 2.0**-8, INT8)


def attention(q: Ints, k: Ints, v: Ints, heads: int, score: Requant, out: Requant) -> Ints:
    dim = q.shape[1] // heads
    parts = [slice(h * dim, (h + 1) * dim) for h in range(heads)]
    return np.concatenate([f.attention_head(q[:, c], k[:, c], v[:, c], score, out) for c in parts], axis=1)


def sliced(layer: Dense, width: Width) -> Dense:
    """The layer that the first planes of its weights stand for: the middle of the interval that they name."""
    if width is Width.STORED:
        return layer
    drop = 8 - SLICE_BITS[width]
    return dataclasses.replace(layer, weight=((layer.weight >> drop) << drop) + (1 << (drop - 1)))


def expert_outputs(
    x: Ints, residual: Ints, gates: Ints, layers: list[tuple[Dense, Dense]], widths: tuple[Width, ...]
) -> Ints:
    y = residual.copy()
    for e, layer in enumerate(layers):
        first, second = (sliced(part, widths[e] if widths else Width.STORED) for part in layer)
        tokens = np.flatnonzero(gates[:, e])
        if tokens.size:
            h = gelu(requantized(x[tokens], first))
            y[tokens] = f.gated_add(y[tokens], requantized(h, second), gates[tokens, e])
    return y


def queue_words(gates: Ints, size: MachineSize) -> Ints:
    """The queues [experts, max_rows + 1] for gates [rows, experts]; masked where an entry may hold anything."""
    queues = np.ma.masked_all((gates.shape[1], size.max_rows + 1), dtype=np.int64)
    for queue, gate in zip(queues, gates.T, strict=True):
        tokens = np.flatnonzero(gate)
        queue[0] = len(tokens)
        queue[1 : len(tokens) + 1] = tokens | (gate[tokens] << 16)
    return queues
