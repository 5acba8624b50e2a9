# SPDX-License-Identifier: Apache-2.0
"""How each operator enters a native plan (kernels/include/codesign/plan.hpp)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from codesign.engines.cpu_build import Builder, Step, requant_of
from codesign.engines.cpu_weights import Key, Native
from codesign.reference import functions as f
from codesign.spec import (
    INT8,
    AddParams,
    AttentionParams,
    ExpertsParams,
    GeluParams,
    LinearParams,
    NormParams,
    OpKind,
    Requant,
    RouteParams,
)


def linear(builder: Builder, step: Step) -> None:
    """LINEAR alone, see LinearParams."""
    x, weight, bias = step.node.inputs
    assert isinstance(step.node.params, LinearParams)
    layer = builder.dense(weight, bias, step.node.params.requant)
    builder.plan.linear(layer, builder.tensor(x), builder.tensor(step.node.output.name))


def gelu(builder: Builder, step: Step) -> None:
    """GELU, see GeluParams; with the LINEAR before it where they were joined."""
    assert isinstance(step.node.params, GeluParams)
    rescaling, y = _pair(step.node.params.requant), builder.tensor(step.node.output.name)
    if step.linear is None:
        builder.plan.gelu(rescaling, builder.tensor(step.node.inputs[0]), y)
        return
    x, weight, bias = step.linear.inputs
    builder.plan.linear_gelu(builder.dense(weight, bias, requant_of(step)), rescaling, builder.tensor(x), y)


def add(builder: Builder, step: Step) -> None:
    """ADD, see AddParams; with the LINEAR before it where they were joined."""
    assert isinstance(step.node.params, AddParams)
    a, b = step.node.inputs
    offset, y = step.node.params.row_offset, builder.tensor(step.node.output.name)
    if step.linear is None:
        builder.plan.add(builder.tensor(a), builder.tensor(b), y, offset)
        return
    x, weight, bias = step.linear.inputs
    layer = builder.dense(weight, bias, requant_of(step))
    builder.plan.linear_add(layer, builder.tensor(x), builder.tensor(a), y, offset)


def norm(builder: Builder, step: Step) -> None:
    """NORM, see NormParams."""
    assert isinstance(step.node.params, NormParams)
    x, gain, bias = step.node.inputs
    gains = np.ascontiguousarray(builder.values(gain), dtype=np.int16)
    biases = np.ascontiguousarray(builder.values(bias), dtype=np.int32)
    y = builder.tensor(step.node.output.name)
    builder.plan.norm(gains, biases, step.node.params.shift, builder.tensor(x), y)


def attention(builder: Builder, step: Step) -> None:
    """ATTENTION, see AttentionParams."""
    p = step.node.params
    assert isinstance(p, AttentionParams)
    tensors = [builder.tensor(name) for name in (*step.node.inputs, step.node.output.name)]
    builder.plan.attention(p.num_heads, p.head_dim, _pair(p.score), _pair(p.out), *tensors)


def route(builder: Builder, step: Step) -> None:
    """ROUTE, see RouteParams."""
    p = step.node.params
    assert isinstance(p, RouteParams)
    x, weight, bias = step.node.inputs
    gates = step.node.output.name
    builder.active[gates] = p.top_k
    builder.plan.route(builder.dense(weight, bias, p.requant), p.top_k, builder.tensor(x), builder.tensor(gates))


def experts(builder: Builder, step: Step) -> None:
    """EXPERTS, see ExpertsParams."""
    p = step.node.params
    assert isinstance(p, ExpertsParams)
    x, gates, residual, w1, b1, w2, b2 = step.node.inputs
    count = len(p.fc1)

    def layers(weight: str, bias: str, requants: tuple[Requant, ...]) -> list[Native]:
        weights, biases = builder.values(weight), builder.values(bias)
        packed = []
        for e in range(count):
            bits = p.slices[e] if p.slices else INT8.bit_width
            key = Key(weight, bias, e, bits, requants[e])
            packed.append(builder.packed.layer(key, f.slice_planes(weights[e], bits), biases[e]))
        return packed

    tensors = [builder.tensor(name) for name in (x, gates, residual, step.node.output.name)]
    active = builder.active.get(gates, count)
    builder.plan.experts(layers(w1, b1, p.fc1), _pair(p.gelu), layers(w2, b2, p.fc2), active, *tensors)


def _pair(requant: Requant) -> tuple[int, int]:
    return requant.multiplier[0], requant.shift[0]


OPERATORS: Mapping[OpKind, Callable[[Builder, Step], None]] = MappingProxyType(
    {
        OpKind.LINEAR: linear,
        OpKind.GELU: gelu,
        OpKind.ADD: add,
        OpKind.NORM: norm,
        OpKind.ATTENTION: attention,
        OpKind.ROUTE: route,
        OpKind.EXPERTS: experts,
    }
)
"""What writes each operator into a plan."""
