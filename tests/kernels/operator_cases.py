# SPDX-License-Identifier: Apache-2.0
"""Inputs for every operator, random and adversarial, and what the reference makes of them: for every kernel's tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.reference import OPERATORS
from codesign.spec import (
    INT8,
    INT16,
    UINT16,
    AddParams,
    AttentionParams,
    ExpertsParams,
    GeluParams,
    IntType,
    LinearParams,
    Node,
    NormParams,
    OpKind,
    OpParams,
    Requant,
    RouteParams,
    TensorSpec,
)

Ints = npt.NDArray[np.int64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """One operator on its inputs."""

    kind: OpKind
    params: OpParams
    out: IntType
    inputs: tuple[Ints, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"input{i}" for i in range(len(self.inputs)))

    def _node(self, shape: tuple[int, ...]) -> Node:
        return Node("node", self.kind, self.names, TensorSpec("node", shape, self.out, 1.0), self.params)

    def expected(self) -> tuple[Node, Ints]:
        """The node, and what the reference computes."""
        values = OPERATORS[self.kind](self._node((0,)), list(self.inputs))
        return self._node(values.shape), values


def requant(rng: Rng, channels: int, peak: float, out: IntType) -> Requant:
    """Factors that take `peak` to about the ends of the type, each its own."""
    factors = out.max / max(peak, 1.0) * rng.uniform(0.3, 3.0, channels)
    return Requant.of_scale([float(v) for v in factors], out)


def linear(rng: Rng, rows: int, inputs: int, outputs: int, out: IntType, limit: int = 128) -> Case:
    x, w = rng.integers(-128, 128, (rows, inputs)), rng.integers(-limit, limit, (outputs, inputs))
    bias = rng.integers(-9999, 9999, outputs)
    rq = requant(rng, int(rng.choice([1, outputs])), inputs**0.5 * 43 * limit, out)
    return Case(OpKind.LINEAR, LinearParams(rq), out, (x, w, bias))


def linear_ties(out: IntType, shift: int, multiplier: int) -> Case:
    """Sums around every tie of the rescaling that lies in the range, and around the ends of 24 and 32 bits."""
    half = 1 << (shift - 1)
    ties = [(k * (1 << shift) - half) // max(multiplier, 1) for k in (-32769, -129, -128, -1, 0, 1, 2, 127, 128, 32767)]
    ends = [s * 2**b for b in (0, 15, 16, 22, 23, 24, 25, 30, 31) for s in (-1, 1)]
    near = {c + d for c in (*ties, *ends) for d in (-2, -1, 0, 1, 2)}
    reach = 2**31 - 1 - 128 * 2
    bias = np.array(sorted({int(np.clip(v, -reach, reach)) for v in near}), dtype=np.int64)
    x, w = np.array([[0], [1], [-1]]), np.ones((len(bias), 1), dtype=np.int64)
    return Case(OpKind.LINEAR, LinearParams(Requant((multiplier,), (shift,), out)), out, (x, w, bias))


def linear_small_ties() -> Case:
    """Sums below 2^24, where single precision would do: ties of many factors, and their neighbours."""
    rng = np.random.default_rng(5)
    bias, multipliers, shifts = [], [], []
    for _ in range(4000):
        m, s = int(rng.integers(2**15, 2**16)), int(rng.integers(17, 38))
        k = int(rng.integers(-130, 131))
        tie = (k * (1 << s) - (1 << (s - 1))) // m
        if abs(tie) < 2**24 - 300:
            bias.append(tie + int(rng.integers(-1, 3)))
            multipliers.append(m)
            shifts.append(s)
    x, w = np.array([[0], [1], [-1]]), np.ones((len(bias), 1), dtype=np.int64)
    rq = Requant(tuple(multipliers), tuple(shifts), INT8)
    return Case(OpKind.LINEAR, LinearParams(rq), INT8, (x, w, np.array(bias)))


def linear_extremes(inputs: int, outputs: int, low: int, high: int, out: IntType) -> Case:
    """The largest sums of every sign that there are: all x and all weights at the ends of their ranges."""
    x = np.repeat([[-128], [127]], inputs, axis=1)
    w = np.where(np.arange(outputs)[:, None] % 2, low, high) * np.ones((1, inputs), dtype=np.int64)
    rq = Requant.of_scale(out.max / (inputs * 128 * 128), out)
    return Case(OpKind.LINEAR, LinearParams(rq), out, (x, w, np.zeros(outputs, dtype=np.int64)))


def gelu(u: Ints, scale: float) -> Case:
    return Case(OpKind.GELU, GeluParams(Requant.of_scale(scale, INT8)), INT8, (u,))


GELU_SCALES = (2.0**-8, 0.0312, 127 / 32767, 2.0**-20, 1.7, 30000.0)
EVERY_WORD = np.arange(-(2**15), 2**15).reshape(256, 256)


def gelu_of_any_shape(rng: Rng, rows: int, columns: int) -> Case:
    return gelu(rng.integers(-5000, 5000, (rows, columns)), float(rng.uniform(0.001, 0.1)))


def add(rng: Rng, rows: int, columns: int, offset: int) -> Case:
    a = rng.integers(-(2**15), 2**15, (rows, columns))
    b = rng.integers(-(2**15), 2**15, (rows - offset, columns))
    return Case(OpKind.ADD, AddParams(offset), INT16, (a, b))


def norm(rng: Rng, rows: int, dim: int, bits: int, shift: int) -> Case:
    x = rng.integers(-(2**bits), 2**bits, (rows, dim)) + rng.integers(-(2**15), 2**15, (rows, 1))
    x = np.clip(x, -(2**15), 2**15 - 1)
    gain = rng.integers(-(2**15), 2**15, dim) >> rng.integers(0, 16)
    bias = rng.integers(-(2**30), 2**30, dim) >> rng.integers(0, 31)
    return Case(OpKind.NORM, NormParams(shift), INT8, (x, gain, bias))


def norm_extremes(dim: int) -> Iterator[Case]:
    low, high = -(2**15), 2**15 - 1
    x = np.zeros((9, dim), dtype=np.int64)
    x[1], x[2] = low, high  # no variance
    x[3, ::2], x[3, 1::2] = low, high
    x[4], x[4, -1] = low, high
    x[5], x[5, 0] = high, low
    x[6, 0] = 1
    x[7] = np.arange(dim)
    x[8, : dim // 2] = low
    gain = np.where(np.arange(dim) % 2, high, low)
    for bias in (np.zeros(dim, dtype=np.int64), np.full(dim, 2**31 - 1), np.full(dim, -(2**31))):
        for shift in (1, 14, 31, 32, 62):
            yield Case(OpKind.NORM, NormParams(shift), INT8, (x, gain, bias))


def attention(rng: Rng, tokens: int, heads: int, dim: int, sharp: int) -> Case:
    q, k, v = (rng.integers(-128, 128, (tokens, heads * dim)) for _ in range(3))
    params = AttentionParams(
        heads, dim, Requant.of_scale(2.0**-sharp, INT16), Requant.of_scale(float(rng.uniform(0.001, 0.02)), INT8)
    )
    return Case(OpKind.ATTENTION, params, INT8, (q, k, v))


def attention_distances(sign: int) -> Case:
    """Scores 0, 1, 2, ... of one query are all distances from the largest that PROB tells apart, and more.

    Queries are repeated to as many as there are keys: the operator has one number of tokens.
    """
    tokens = 2500
    low, high = np.arange(tokens) % 100, np.arange(tokens) // 100
    k = np.stack([low, high], axis=1)
    q = np.zeros((40, 2), dtype=np.int64)
    q[:] = (sign, 100 * sign)
    v = np.stack([low - 50, 127 - 5 * high], axis=1)
    params = AttentionParams(1, 2, Requant((1 << 15,), (15,), INT16), Requant.of_scale(0.9 / 256, INT8))
    return Case(OpKind.ATTENTION, params, INT8, (np.resize(q, k.shape), k, v))


def attention_extremes(x: int) -> Iterator[Case]:
    q = np.full((70, 64), x)
    q[3:5] = -128
    for scale in (2.0**-12, 1.0, 30000.0):
        params = AttentionParams(1, 64, Requant.of_scale(scale, INT16), Requant.of_scale(1.0, INT8))
        yield Case(OpKind.ATTENTION, params, INT8, (q, q[::-1].copy(), q))


def route(rng: Rng, rows: int, dim: int, experts: int, top_k: int, ties: bool) -> Case:
    x, w = rng.integers(-128, 128, (rows, dim)), rng.integers(-128, 128, (experts, dim))
    if ties:
        w = w[rng.integers(0, min(2, experts), experts)]
    bias = np.zeros(experts, dtype=np.int64) if ties else rng.integers(-999, 999, experts)
    rq = Requant.of_scale(float(rng.uniform(0.001, 0.5)), INT16)
    return Case(OpKind.ROUTE, RouteParams(min(top_k, experts), rq), UINT16, (x, w, bias))


def route_far_and_near() -> Case:
    bias = np.array([32767, 32767, -32768, 32511, 32512, 28672, 28671, 0])
    params = RouteParams(8, Requant((1 << 15,), (15,), INT16))
    return Case(OpKind.ROUTE, params, UINT16, (np.array([[0], [1], [-1]]), np.ones((8, 1), dtype=np.int64), bias))


def experts(
    rng: Rng, rows: int, dim: int, hidden: int, count: int, limit: int, slices: tuple[int, ...] = ()
) -> Case:  # fmt: skip
    gates = rng.integers(0, 32769, (rows, count)) * (rng.random((rows, count)) < 0.4)
    inputs = (
        rng.integers(-128, 128, (rows, dim)),
        gates,
        rng.integers(-(2**15), 2**15, (rows, dim)),
        rng.integers(-limit, limit + 1, (count, hidden, dim)),
        rng.integers(-500, 500, (count, hidden)),
        rng.integers(-limit, limit + 1, (count, dim, hidden)),
        rng.integers(-500, 500, (count, dim)),
    )
    fc1 = tuple(
        Requant.of_scale([float(v) for v in rng.uniform(0.2, 1, hidden) * 9 / limit], INT16) for _ in range(count)
    )
    fc2 = tuple(Requant.of_scale(float(rng.uniform(2, 60) / limit), INT16) for _ in range(count))
    return Case(OpKind.EXPERTS, ExpertsParams(fc1, Requant.of_scale(0.03, INT8), fc2, slices), INT16, inputs)


def experts_gates_beyond_one() -> Case:
    """With an expert that nobody asks for."""
    rng = np.random.default_rng(1)
    case = experts(rng, 70, 16, 16, 4, 127)
    gates, residual = case.inputs[1:3]
    gates[:, 1] = 0
    gates[:, 2] = [65535, 32769, 32768, 32767, 1, 0, 40000] * 10
    residual[:] = rng.choice([-32768, 32767, 0], residual.shape)
    return case


def experts_unused() -> Case:
    case = experts_gates_beyond_one()
    case.inputs[1][:] = 0
    return case
