# SPDX-License-Identifier: Apache-2.0
"""Runs a graph with the exact functions, one operator after the other, keeping every tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
    LinearParams,
    Node,
    NormParams,
    OpKind,
    RouteParams,
)


def linear(node: Node, inputs: list[Ints]) -> Ints:
    """LINEAR, see LinearParams."""
    assert isinstance(node.params, LinearParams)
    x, weight, bias = inputs
    return f.requantize(f.matmul(x, weight, bias), node.params.requant)


def gelu(node: Node, inputs: list[Ints]) -> Ints:
    """GELU, see GeluParams."""
    assert isinstance(node.params, GeluParams)
    return f.requantize(f.gelu_fixed(inputs[0]), node.params.requant)


def add(node: Node, inputs: list[Ints]) -> Ints:
    """ADD, see AddParams."""
    assert isinstance(node.params, AddParams)
    y = inputs[0].copy()
    y[node.params.row_offset :] = f.saturate(y[node.params.row_offset :] + inputs[1], INT16)
    return y


def norm(node: Node, inputs: list[Ints]) -> Ints:
    """NORM, see NormParams."""
    assert isinstance(node.params, NormParams)
    x, gain, bias = inputs
    return f.affine(f.normalise(x), gain, bias, node.params.shift)


def attention(node: Node, inputs: list[Ints]) -> Ints:
    """ATTENTION, see AttentionParams."""
    p = node.params
    assert isinstance(p, AttentionParams)
    q, k, v = (x.reshape(x.shape[0], p.num_heads, p.head_dim) for x in inputs)
    heads = [f.attention_head(q[:, h], k[:, h], v[:, h], p.score, p.out) for h in range(p.num_heads)]
    return np.concatenate(heads, axis=-1)


def route(node: Node, inputs: list[Ints]) -> Ints:
    """ROUTE, see RouteParams."""
    assert isinstance(node.params, RouteParams)
    x, weight, bias = inputs
    return f.gates(f.requantize(f.matmul(x, weight, bias), node.params.requant), node.params.top_k)


def experts(node: Node, inputs: list[Ints]) -> Ints:
    """EXPERTS, see ExpertsParams."""
    p = node.params
    assert isinstance(p, ExpertsParams)
    x, gates, residual, w1, b1, w2, b2 = inputs
    y = residual.copy()
    for e in range(gates.shape[1]):
        queue = np.nonzero(gates[:, e])[0]
        if queue.size == 0:
            continue
        bits = p.slices[e] if p.slices else INT8.bit_width
        u = f.requantize(f.matmul(x[queue], f.slice_planes(w1[e], bits), b1[e]), p.fc1[e])
        h = f.requantize(f.gelu_fixed(u), p.gelu)
        o = f.requantize(f.matmul(h, f.slice_planes(w2[e], bits), b2[e]), p.fc2[e])
        y[queue] = f.gated_add(y[queue], o, gates[queue, e])
    return y


OPERATORS: Mapping[OpKind, Callable[[Node, list[Ints]], Ints]] = MappingProxyType(
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


def _run(graph: Graph, nodes: Iterable[Node], x: Ints) -> dict[str, Ints]:
    spec = graph.input
    if x.shape != spec.shape or not np.issubdtype(x.dtype, np.integer):
        raise InputError(
            f"input {spec.name} must be integers of shape {spec.shape}, not {x.dtype} {x.shape}; use to_patches"
        )
    if x.size and (int(x.min()) < spec.type.min or int(x.max()) > spec.type.max):
        raise InputError(f"input {spec.name} must fit {spec.type}, not the range {x.min()}..{x.max()}; use to_patches")
    values = {c.spec.name: c.values for c in graph.constants}
    values[spec.name] = x.astype(np.int64)
    for node in nodes:
        y = OPERATORS[node.kind](node, [values[name] for name in node.inputs])
        if y.shape != node.output.shape:
            raise InputError(
                f"node {node.name} must compute shape {node.output.shape}, not {y.shape}; check the graph's specs"
            )
        values[node.output.name] = y
    return {name: v for name, v in values.items() if name not in {c.spec.name for c in graph.constants}}


def run_graph(graph: Graph, x: Ints) -> dict[str, Ints]:
    """Every computed tensor of every task for one input [patches, elements]. Raises InputError for a wrong input."""
    return _run(graph, graph.nodes, x)


def run_task(graph: Graph, task: str, x: Ints) -> dict[str, Ints]:
    """As `run_graph`, for the nodes that one task needs."""
    return _run(graph, graph.nodes_of(task), x)
