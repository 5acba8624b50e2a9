# SPDX-License-Identifier: Apache-2.0
"""The unified unit's test bench, and what its passes must leave in the memories, by `codesign.reference.functions`."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

from codesign.emit.params import PassKind, PassPost, RowSource
from codesign.reference import functions as f
from codesign.schedule.design import MachineSize
from codesign.schedule.stream import ceil_div, pack_tile, pad_to, records
from codesign.spec.types import INT8, INT16, Requant

Ints = npt.NDArray[np.int64]
ACT, RES, QUEUE, BLOCKS, LOGITS = range(5)
READ_LATENCY = 3
BLOCK_MEMORY = 4096


@dataclass(frozen=True)
class Pass:
    """The fields of codesign_pkg::pass_t."""

    kind: int = PassKind.DENSE
    post: int = 0
    source: int = RowSource.READY
    last: int = 1
    planes: int = 0
    align: int = 0
    queued: int = 0
    queue_base: int = 0
    rows: int = 0
    keys: int = 0
    k_words: int = 0
    n_tiles: int = 0
    blocks: int = 0
    src_base: int = 0
    src_stride: int = 0
    kv_base: int = 0
    dst_base: int = 0
    dst_stride: int = 0
    column: int = 0
    dim: int = 0
    multiplier: int = 0
    shift: int = 1


@dataclass(frozen=True)
class Layer:
    """A dense layer, weights as the array sees them: `planes` bits each, or the first `planes` of 8 (a slice)."""

    weight: Ints
    bias: Ints
    rq: Requant
    planes: int = 8
    sliced: bool = False

    @property
    def effective(self) -> Ints:
        """The weights that count."""
        return self.seen(self.weight)

    def seen(self, weight: Ints) -> Ints:
        """Weights as the array sees them: a slice makes something of zeros that pad a tile, too."""
        return f.slice_planes(weight, self.planes) if self.sliced else weight

    @property
    def blocks_a_tile(self) -> int:
        """Blocks of one weight tile as they come out of the FIFO."""
        return self.planes + int(self.sliced)

    @property
    def align(self) -> int:
        """Right shift of the array's sums."""
        return 0 if self.sliced else 8 - self.planes

    def stream(self, size: MachineSize) -> list[int]:
        """The blocks of the layer: for each n tile its records, then its tiles."""
        outputs, inputs = self.weight.shape
        n_tiles, k_words = ceil_div(outputs, size.pe), ceil_div(inputs, size.simd)
        weight = pad_to(self.weight, (n_tiles * size.pe, k_words * size.simd))
        record = records(self.bias, np.array(self.rq.multiplier), np.array(self.rq.shift), n_tiles * size.pe)
        data = b""
        for j in range(n_tiles):
            rows = slice(j * size.pe, (j + 1) * size.pe)
            data += record[rows].astype("<u8").tobytes()
            for k in range(k_words):
                tile = weight[rows, k * size.simd : (k + 1) * size.simd]
                planes = pack_tile(tile, 8 if self.sliced else self.planes)[: self.planes * size.block_bytes]
                data += planes + b"\xff" * (size.block_bytes if self.sliced else 0)
        return [int.from_bytes(data[i : i + size.block_bytes], "little") for i in range(0, len(data), size.block_bytes)]


@dataclass
class Memories:
    """The on-chip memories as numpy arrays of lanes, and what passes do to them, one after the other."""

    size: MachineSize
    act: Ints
    res: Ints
    queue: Ints
    scores: Ints = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    logits: Ints = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))

    @staticmethod
    def noise(size: MachineSize, rng: np.random.Generator) -> Memories:
        """Memories full of random lanes."""
        return Memories(
            size,
            rng.integers(-128, 128, size.act_words * size.simd),
            rng.integers(-32768, 32768, size.res_words * size.pe),
            np.zeros(size.max_experts * (size.max_rows + 1), dtype=np.int64),
        )

    def _rows(self, base: int, stride: int, rows: Ints, columns: int) -> Ints:
        """Indices [rows, columns] of ACT lanes."""
        return ((base + rows * stride) * self.size.simd)[:, None] + np.arange(columns)

    def put_act(self, base: int, stride: int, values: Ints) -> None:
        """Puts rows of int8 at the beginning of ACT rows."""
        self.act[self._rows(base, stride, np.arange(values.shape[0]), values.shape[1])] = values

    def get_act(self, base: int, stride: int, rows: int, columns: int) -> Ints:
        """Rows of int8 [rows, columns]."""
        return self.act[self._rows(base, stride, np.arange(rows), columns)]

    def apply(self, command: Pass, layer: Layer | None = None) -> None:
        """Does what the unit must do for a pass."""
        if command.kind == PassKind.DENSE:
            assert layer is not None
            self._dense(command, layer)
        elif command.kind == PassKind.SCORE:
            self._score(command)
        elif command.kind == PassKind.MIX:
            self._mix(command)

    def _dense(self, p: Pass, layer: Layer) -> None:
        size = self.size
        rows = np.arange(p.rows)
        entries = self.queue[p.queue_base + rows] if p.queued else rows
        tokens, gates = entries & 0xFFFF, entries >> 16
        gated = p.post == PassPost.GATED
        width = p.n_tiles * size.pe
        weight = layer.seen(pad_to(layer.weight, (layer.weight.shape[0], p.k_words * size.simd)))
        x = self.act[self._rows(p.src_base, p.src_stride, tokens if p.queued and not gated else rows, weight.shape[1])]
        rq = Requant(layer.rq.multiplier, layer.rq.shift, INT16)
        middle = pad_to(f.requantize(f.matmul(x, weight, layer.bias), rq), (p.rows, width))
        scale = Requant((p.multiplier,), (p.shift,), INT8)
        if p.post == PassPost.LOGITS:
            self.logits = middle
        elif p.post in (PassPost.INT8, PassPost.GELU):
            out = f.saturate(middle, INT8) if p.post == PassPost.INT8 else f.requantize(f.gelu_fixed(middle), scale)
            self.act[self._rows(p.dst_base, p.dst_stride, rows, width)] = out
        else:
            to = (p.dst_base + (tokens if gated else rows) * p.dst_stride)[:, None] * size.pe + np.arange(width)
            if p.post == PassPost.INT16:
                self.res[to] = middle
            elif p.post == PassPost.ADD:
                self.res[to] = f.saturate(self.res[to] + middle, INT16)
            else:
                self.res[to] = f.gated_add(self.res[to], middle, gates)

    def _score(self, p: Pass) -> None:
        columns = p.column + p.dim
        q = self.get_act(p.src_base, p.src_stride, p.rows, columns)[:, p.column :]
        k = self.get_act(p.kv_base, p.src_stride, p.keys, columns)[:, p.column :]
        self.scores = f.requantize(
            f.matmul(q, k, np.zeros(1, dtype=np.int64)), Requant((p.multiplier,), (p.shift,), INT16)
        )

    def _mix(self, p: Pass) -> None:
        columns = p.column + p.dim
        v = self.get_act(p.kv_base, p.src_stride, p.keys, columns)[:, p.column :]
        prob = f.probability(self.scores.max(axis=-1, keepdims=True) - self.scores)
        r, e = f.reciprocal(prob.sum(axis=-1, keepdims=True))
        z = f.saturate(f.shift_round(f.matmul(prob, v.T, np.zeros(1, dtype=np.int64)) * r, 22 + e), INT16)
        to = self._rows(p.dst_base, p.dst_stride, np.arange(p.rows), columns)[:, p.column :]
        self.act[to] = f.requantize(z, Requant((p.multiplier,), (p.shift,), INT8))


def pack_words(flat: Ints, lanes: int, bits: int) -> list[int]:
    """Lanes as words, lane 0 in the lowest bits."""
    data = flat.astype({8: "<i1", 16: "<i2", 32: "<i8"}[bits])
    if bits == 32:
        return [int(v) for v in data]
    raw, step = data.tobytes(), lanes * bits // 8
    return [int.from_bytes(raw[i : i + step], "little") for i in range(0, len(raw), step)]


def unpack_words(words: list[int], lanes: int, bits: int) -> Ints:
    """The inverse of `pack_words` for signed lanes."""
    raw = b"".join((w & ((1 << (lanes * bits)) - 1)).to_bytes(lanes * bits // 8, "little") for w in words)
    return np.frombuffer(raw, dtype={8: "<i1", 16: "<i2"}[bits]).astype(np.int64)


class Bench:
    """Drives tb_unified_unit. Values change at falling edges, so every rising edge sees them settled."""

    def __init__(self, dut: Any, size: MachineSize, seed: int = 1, stall_percent: int = 30) -> None:
        self.dut = dut
        self.size = size
        self.random = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.stall_percent = stall_percent
        self.memories = Memories.noise(size, self.rng)
        self.blocks_put = 0
        self.blocks_expected = 0
        self.dones_expected = 0

    async def start(self) -> None:
        """Clock and reset, then random memories."""
        dut = self.dut
        for name in (
            "host_memory_i", "host_we_i", "host_ren_i", "host_addr_i", "pass_valid_i", "block_limit_i", "norm_rows_i",
        ):  # fmt: skip
            getattr(dut, name).value = 0
        self.stalls(self.stall_percent)
        Clock(dut.clk_i, 2, unit="ns").start()
        await self.reset()
        await self.load()

    async def reset(self) -> None:
        """Five cycles of reset; the stream starts again."""
        dut = self.dut
        dut.rst_ni.value = 0
        for _ in range(5):
            await FallingEdge(dut.clk_i)
        dut.block_limit_i.value = 0
        dut.rst_ni.value = 1
        self.blocks_put = self.blocks_expected = self.dones_expected = 0
        await FallingEdge(dut.clk_i)

    def stalls(self, percent: int) -> None:
        """Chance that a block, or the port of K and V, is not there."""
        self.dut.block_stall_i.value = percent * 128 // 100
        self.dut.key_stall_i.value = percent * 128 // 100

    async def write(self, memory: int, base: int, words: list[int]) -> None:
        """Writes consecutive words."""
        dut = self.dut
        dut.host_memory_i.value = memory
        dut.host_we_i.value = 1
        for i, word in enumerate(words):
            dut.host_addr_i.value = base + i
            dut.host_wdata_i.value = word
            while True:
                await RisingEdge(dut.clk_i)
                ready = bool(dut.host_ready_o.value)
                await FallingEdge(dut.clk_i)
                if ready:
                    break
        dut.host_we_i.value = 0

    async def read(self, memory: int, base: int, count: int) -> list[int]:
        """Reads consecutive words."""
        dut = self.dut
        dut.host_memory_i.value = memory
        latency = {ACT: 3, RES: 2, LOGITS: 1}[memory]
        words: list[int] = []
        for i in range(count + latency - 1):
            dut.host_ren_i.value = int(i < count)
            dut.host_addr_i.value = base + min(i, count - 1)
            await FallingEdge(dut.clk_i)
            if i >= latency - 1:
                words.append(int(dut.host_rdata_o.value))
        dut.host_ren_i.value = 0
        return words

    async def load(self) -> None:
        """Brings the model's memories into the unit's."""
        size, m = self.size, self.memories
        await self.write(ACT, 0, pack_words(m.act, size.simd, 8))
        await self.write(RES, 0, pack_words(m.res, size.pe, 16))
        await self.write(QUEUE, 0, pack_words(m.queue, 1, 32))

    def act_words(self, base: int, count: int) -> list[int]:
        """Words of the model's ACT."""
        simd = self.size.simd
        return pack_words(self.memories.act[base * simd : (base + count) * simd], simd, 8)

    def res_lanes(self, words: list[int]) -> Ints:
        """Lanes of RES words."""
        return unpack_words(words, self.size.pe, 16)

    async def put_blocks(self, blocks: list[int]) -> None:
        """Appends to the stream."""
        for i, block in enumerate(blocks):
            await self.write(BLOCKS, (self.blocks_put + i) % BLOCK_MEMORY, [block])
        self.blocks_put += len(blocks)
        self.dut.block_limit_i.value = self.blocks_put

    async def send(self, command: Pass) -> None:
        """Hands a pass over."""
        dut = self.dut
        for item in fields(command):
            getattr(dut, f"pass_{item.name}_i").value = int(getattr(command, item.name))
        dut.pass_valid_i.value = 1
        while True:
            await RisingEdge(dut.clk_i)
            ready = bool(dut.pass_ready_o.value)
            await FallingEdge(dut.clk_i)
            if ready:
                break
        dut.pass_valid_i.value = 0
        self.dones_expected += command.last

    async def finish(self, limit: int = 60000) -> None:
        """Waits until everything has landed, and checks that nothing more or less was taken or reported."""
        for _ in range(limit):
            await FallingEdge(self.dut.clk_i)
            if int(self.dut.dones_o.value) == self.dones_expected and int(self.dut.state_o.value) == 0:
                break
        else:
            taken, state = int(self.dut.blocks_o.value), int(self.dut.state_o.value)
            raise AssertionError(f"hangs in state {state} with {taken} blocks of {self.blocks_put} taken")
        assert int(self.dut.blocks_o.value) == self.blocks_expected
        assert not self.dut.norm_wait_o.value

    async def run(self, work: list[tuple[Pass, Layer | None]]) -> int:
        """Runs passes (the stream already waits), each handed over as early as the unit takes it; their cycles."""
        for command, layer in work:
            if layer is not None:
                self.blocks_expected += len(layer.stream(self.size))
            self.blocks_expected += command.blocks
        begin = int(self.dut.cycle_o.value)
        sender = cocotb.start_soon(self.send_all([command for command, _ in work]))
        await sender
        await self.finish()
        return int(self.dut.cycle_o.value) - begin

    async def send_all(self, commands: list[Pass]) -> None:
        """Hands passes over, each as early as the unit takes it."""
        for command in commands:
            await self.send(command)

    async def check(self, work: list[tuple[Pass, Layer | None]], drop: dict[int, list[int]] | None = None) -> int:
        """Runs passes and compares every lane of ACT and RES with the model's; returns the cycles."""
        for i, (_, layer) in enumerate(work):
            await self.put_blocks((drop or {}).get(i, []))
            if layer is not None:
                await self.put_blocks(layer.stream(self.size))
        cycles = await self.run(work)
        for command, layer in work:
            self.memories.apply(command, layer)
        await self.compare()
        return cycles

    async def compare(self) -> None:
        """Every lane of ACT and RES."""
        size = self.size
        act = unpack_words(await self.read(ACT, 0, size.act_words), size.simd, 8)
        np.testing.assert_array_equal(act, self.memories.act, err_msg="ACT")
        res = unpack_words(await self.read(RES, 0, size.res_words), size.pe, 16)
        np.testing.assert_array_equal(res, self.memories.res, err_msg="RES")

    async def read_logits(self, rows: int) -> Ints:
        """int16 [rows, pe]."""
        return unpack_words(await self.read(LOGITS, 0, rows), self.size.pe, 16).reshape(rows, -1)
