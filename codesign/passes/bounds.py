# SPDX-License-Identifier: Apache-2.0
"""Worst-case ranges of every tensor and accumulator, from the actual weights, by interval arithmetic.

An accumulator's range covers the sum after any number of its products in any order, before and after the bias: hardware
may add tiles in the order it likes. Width rule as in Colbert et al. 2023 (A2Q), section 3, with exact weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from codesign.errors import InputError
from codesign.reference import functions as f
from codesign.reference.functions import Ints
from codesign.spec import (
    INT8,
    INT16,
    AddParams,
    AttentionParams,
    ExpertsParams,
    GeluParams,
    Graph,
    IntType,
    LinearParams,
    Node,
    NormParams,
    OpKind,
    Requant,
)
from codesign.spec.ops import (
    GATE_FRACTION_BITS,
    NORM_FRACTION_BITS,
    PROBABILITY_FRACTION_BITS,
    PROBABILITY_MAX,
)

MAX_ACCUMULATOR_BITS = 32

_TABLE_SLACK = 1.0 + 2.0**-11
"""Above the relative error of the reciprocal and rsqrt tables (below 2**-12, tests/reference)."""


@dataclass(frozen=True)
class Interval:
    """Integers from `low` to `high`, both included."""

    low: int
    high: int

    @staticmethod
    def of(values: Ints) -> Interval:
        """The smallest interval around an array."""
        return Interval(int(values.min()), int(values.max()))

    def union(self, other: Interval) -> Interval:
        """The smallest interval around both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))

    def saturated(self, kind: IntType) -> Interval:
        """Clamped to a type."""
        return Interval(max(kind.min, min(kind.max, self.low)), max(kind.min, min(kind.max, self.high)))

    @property
    def bits(self) -> int:
        """Bits of the smallest signed type that holds it."""
        return (
            max((-self.low - 1).bit_length() if self.low < 0 else 0, self.high.bit_length() if self.high > 0 else 0) + 1
        )


@dataclass(frozen=True)
class NodeBounds:
    """One node: the range of its output, and of its multiply-accumulate sums (None where it has none)."""

    node: str
    kind: OpKind
    output: Interval
    accumulator: Interval | None

    @property
    def accumulator_bits(self) -> int:
        """Signed bits of the accumulator; 0 where there is none."""
        return self.accumulator.bits if self.accumulator else 0


def graph_bounds(graph: Graph) -> tuple[NodeBounds, ...]:
    """The table of all nodes in order. Raises InputError for an accumulator above 32 bits."""
    ranges = {c.spec.name: Interval.of(c.values) for c in graph.constants}
    ranges[graph.input.name] = Interval(graph.input.type.min, graph.input.type.max)
    constants = {c.spec.name: c.values for c in graph.constants}
    table = []
    for node in graph.nodes:
        operands = tuple(_Operand(ranges[name], constants.get(name)) for name in node.inputs)
        output, accumulator = BOUNDS[node.kind](node, operands)
        ranges[node.output.name] = output
        table.append(NodeBounds(node.name, node.kind, output, accumulator))
        if accumulator and accumulator.bits > MAX_ACCUMULATOR_BITS:
            raise InputError(
                f"accumulator of node {node.name} must fit {MAX_ACCUMULATOR_BITS} bits, not reach"
                f" {accumulator.low}..{accumulator.high}; use fewer inputs, smaller weights or a smaller bias"
            )
    return tuple(table)


def accumulator_bits(graph: Graph) -> int:
    """Signed bits that hold every accumulator of the graph, partial sums and bias included."""
    return max((bounds.accumulator_bits for bounds in graph_bounds(graph)), default=1)


@dataclass(frozen=True)
class _Operand:
    range: Interval
    values: Ints | None

    @property
    def constant(self) -> Ints:
        if self.values is None:
            raise InputError("weights, biases, gains must be constants, not computed; check how the graph was made")
        return self.values


_Bounds = tuple[Interval, Interval | None]


def _sums(x: Interval, weight: Ints, bias: Ints) -> tuple[Ints, Ints, Interval]:
    """Lowest and highest accumulator of each channel, and the range of all partial sums. weight [N, K], bias [N]."""
    positive, negative = np.maximum(weight, 0).sum(axis=-1), np.minimum(weight, 0).sum(axis=-1)
    low, high = positive * x.low + negative * x.high, positive * x.high + negative * x.low
    down = positive * min(x.low, 0) + negative * max(x.high, 0)  # only the products that lower the sum
    up = positive * max(x.high, 0) + negative * min(x.low, 0)
    partial = Interval(int(down.min()), int(up.max()))
    return low + bias, high + bias, partial.union(Interval(int((down + bias).min()), int((up + bias).max())))


def _dense(x: Interval, weight: Ints, bias: Ints, requant: Requant) -> tuple[Interval, Interval]:
    low, high, sums = _sums(x, weight, bias)
    return Interval.of(f.requantize(low, requant)).union(Interval.of(f.requantize(high, requant))), sums


def _requantized(x: Interval, requant: Requant) -> Interval:
    return Interval.of(f.requantize(np.array([[x.low], [x.high]], dtype=np.int64), requant))


def _linear(node: Node, inputs: tuple[_Operand, ...]) -> _Bounds:
    assert isinstance(node.params, LinearParams)
    x, weight, bias = inputs
    return _dense(x.range, weight.constant, bias.constant, node.params.requant)


def _gelu_range(u: Interval, requant: Requant) -> Interval:
    every = f.gelu_fixed(np.arange(u.low, u.high + 1, dtype=np.int64))
    return _requantized(Interval.of(every), requant)


def _gelu(node: Node, inputs: tuple[_Operand, ...]) -> _Bounds:
    assert isinstance(node.params, GeluParams)
    return _gelu_range(inputs[0].range, node.params.requant), None


def _add(node: Node, inputs: tuple[_Operand, ...]) -> _Bounds:
    assert isinstance(node.params, AddParams)
    a, b = (i.range for i in inputs)
    total = Interval(a.low + b.low, a.high + b.high).saturated(INT16)
    return (total.union(a) if node.params.row_offset else total), None


def _norm(node: Node, inputs: tuple[_Operand, ...]) -> _Bounds:
    assert isinstance(node.params, NormParams)
    _, gain, bias = inputs
    dim = gain.constant.size
    peak = min(INT16.max, int(np.ceil(np.sqrt(dim) * 2**NORM_FRACTION_BITS * _TABLE_SLACK)) + 1)
    reach = np.abs(gain.constant) * peak
    ends = [f.shift_round(bias.constant + side, node.params.shift) for side in (-reach, reach)]
    return Interval(int(ends[0].min()), int(ends[1].max())).saturated(INT8), None


def _attention(node: Node, inputs: tuple[_Operand, ...]) -> _Bounds:
    p = node.params
    assert isinstance(p, AttentionParams)
    q, k, v = (i.range for i in inputs)
    products = [a * b for a in (q.low, q.high) for b in (k.low, k.high)]
    scores = Interval(p.head_dim * min(0, *products), p.head_dim * max(0, *products))
    rows = node.output.shape[0]
    mix = Interval(rows * PROBABILITY_MAX * min(0, v.low), rows * PROBABILITY_MAX * max(0, v.high))
    one = 2**PROBABILITY_FRACTION_BITS * _TABLE_SLACK  # a weighted mean stays inside v, but for the table's error
    low, high = (int(np.floor(min(v.low * one, v.low * 256))) - 1, int(np.ceil(max(v.high * one, v.high * 256))) + 1)
    return _requantized(Interval(low, high).saturated(INT16), p.out), scores.union(mix)


def _route(node: Node, inputs: tuple[_Operand, ...]) -> _Bounds:
    x, weight, bias = inputs
    _, _, sums = _sums(x.range, weight.constant, bias.constant)
    return Interval(0, int(np.ceil(2**GATE_FRACTION_BITS * _TABLE_SLACK)) + 1), sums


def _experts(node: Node, inputs: tuple[_Operand, ...]) -> _Bounds:
    p = node.params
    assert isinstance(p, ExpertsParams)
    x, gates, residual = (i.range for i in inputs[:3])
    w1, b1, w2, b2 = (i.constant for i in inputs[3:])
    output, sums = residual, Interval(0, 0)
    for e in range(len(w1)):
        bits = p.slices[e] if p.slices else INT8.bit_width
        u, first = _dense(x, f.slice_planes(w1[e], bits), b1[e], p.fc1[e])
        o, second = _dense(_gelu_range(u, p.gelu), f.slice_planes(w2[e], bits), b2[e], p.fc2[e])
        gate = np.array([[0], [gates.high]], dtype=np.int64) * np.array([[o.low, o.high]], dtype=np.int64)
        value = Interval.of(f.shift_round(gate, GATE_FRACTION_BITS)).saturated(INT16)
        output = Interval(output.low + min(0, value.low), output.high + max(0, value.high)).saturated(INT16)
        sums = sums.union(first).union(second)
    return output, sums


BOUNDS: Mapping[OpKind, Callable[[Node, tuple[_Operand, ...]], _Bounds]] = MappingProxyType(
    {
        OpKind.LINEAR: _linear,
        OpKind.GELU: _gelu,
        OpKind.ADD: _add,
        OpKind.NORM: _norm,
        OpKind.ATTENTION: _attention,
        OpKind.ROUTE: _route,
        OpKind.EXPERTS: _experts,
    }
)
