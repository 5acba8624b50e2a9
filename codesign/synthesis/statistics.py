# SPDX-License-Identifier: Apache-2.0
"""What a graph does with images: saturation, loads of experts, outlier channels, spread of attention; and its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from codesign.reference import OPERATORS, run_graph
from codesign.reference import functions as f
from codesign.reference.functions import Ints
from codesign.spec import (
    INT8,
    INT16,
    AttentionParams,
    ExpertsParams,
    GeluParams,
    Graph,
    IntType,
    LinearParams,
    Node,
    OpKind,
    RouteParams,
    TensorSpec,
)
from codesign.spec.patches import Pixels, to_patches


@dataclass(frozen=True)
class TensorUse:
    """How a tensor uses its type: share of values at its limits, and largest magnitude relative to the type's."""

    name: str
    type: IntType
    saturated: float
    peak: float


@dataclass(frozen=True)
class Load:
    """Tokens per expert of one router, one row an image."""

    router: str
    tokens: tuple[tuple[int, ...], ...]

    @property
    def total(self) -> tuple[int, ...]:
        """Tokens per expert over all images."""
        return tuple(sum(image[e] for image in self.tokens) for e in range(len(self.tokens[0])))


@dataclass(frozen=True)
class Attention:
    """Softmax of one attention node: mean over heads and queries of exp(entropy), in keys, and of the largest share."""

    node: str
    keys: int
    effective_keys: float
    largest: float


@dataclass(frozen=True)
class Stream:
    """The residual stream after one node, in real units: largest magnitude of the largest and the median channel."""

    node: str
    largest: float
    median: float


@dataclass(frozen=True)
class Statistics:
    """Of a graph over images."""

    tensors: tuple[TensorUse, ...]
    loads: tuple[Load, ...]
    attentions: tuple[Attention, ...]
    streams: tuple[Stream, ...]


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one image and task: dense layers (routers and chosen experts included), and attention."""

    linear: int
    attention: int

    @property
    def total(self) -> int:
        """Both."""
        return self.linear + self.attention


def count_macs(graph: Graph, task: str) -> Macs:
    """The work of one task on one image. Raises InputError for an unknown task."""
    linear = attention = 0
    nodes = graph.nodes_of(task)
    top_k = {n.output.name: n.params.top_k for n in nodes if isinstance(n.params, RouteParams)}
    for node in nodes:
        rows = node.output.shape[0]
        if node.kind in (OpKind.LINEAR, OpKind.ROUTE):
            linear += rows * int(np.prod(graph.spec_of(node.inputs[1]).shape))
        elif node.kind is OpKind.EXPERTS:
            _, hidden, dim = graph.spec_of(node.inputs[3]).shape
            linear += 2 * top_k[node.inputs[1]] * rows * hidden * dim
        elif node.kind is OpKind.ATTENTION:
            attention += 2 * rows * graph.spec_of(node.inputs[1]).shape[0] * node.output.shape[1]
    return Macs(linear, attention)


def measure(graph: Graph, images: Pixels) -> Statistics:
    """Run the reference on images uint8 [n, height, width, channels] and look at every tensor.

    The hidden activations of experts appear as `<node>.hidden`.
    """
    runs = [_run(graph, x) for x in to_patches(images, graph.image)]

    def over(name: str) -> Ints:
        return np.stack([run[name] for run in runs])

    hidden = [TensorSpec(f"{n.name}.hidden", (), INT8, 1.0) for n in graph.nodes if n.kind is OpKind.EXPERTS]
    specs = [n.output for n in graph.nodes if n.output.type in (INT8, INT16)] + hidden
    stream_ends = [n for n in graph.nodes if n.kind in (OpKind.ADD, OpKind.EXPERTS)]
    return Statistics(
        tuple(_use(spec, np.concatenate([run[spec.name] for run in runs])) for spec in specs),
        tuple(_load(n, over(n.output.name)) for n in graph.nodes if n.kind is OpKind.ROUTE),
        tuple(_attention(n, over) for n in graph.nodes if n.kind is OpKind.ATTENTION),
        tuple(_stream(n.output, over(n.output.name)) for n in stream_ends),
    )


def _run(graph: Graph, x: Ints) -> dict[str, Ints]:
    values = run_graph(graph, x)
    for node in graph.nodes:
        if node.kind is OpKind.EXPERTS:
            values[f"{node.name}.hidden"] = _hidden(graph, node, values)
    return values


def _hidden(graph: Graph, node: Node, values: dict[str, Ints]) -> Ints:
    """Hidden activations of all queues, one under the other."""
    p = node.params
    assert isinstance(p, ExpertsParams)
    x, gates = values[node.inputs[0]], values[node.inputs[1]]
    w1, b1 = (graph.constant(name).values for name in node.inputs[3:5])
    parts = []
    for e, fc1 in enumerate(p.fc1):
        spec = TensorSpec("u", (), INT16, 1.0)
        queue = x[gates[:, e] > 0]
        bits = p.slices[e] if p.slices else INT8.bit_width
        linear = Node("u", OpKind.LINEAR, (), spec, LinearParams(fc1))
        u = OPERATORS[OpKind.LINEAR](linear, [queue, f.slice_planes(w1[e], bits), b1[e]])
        parts.append(OPERATORS[OpKind.GELU](Node("h", OpKind.GELU, (), spec, GeluParams(p.gelu)), [u]))
    return np.concatenate(parts)


def _use(spec: TensorSpec, values: Ints) -> TensorUse:
    at_limit = (values == spec.type.min) | (values == spec.type.max)
    return TensorUse(spec.name, spec.type, float(at_limit.mean()), float(np.abs(values).max()) / spec.type.max)


def _load(node: Node, gates: Ints) -> Load:
    counts = (gates > 0).sum(axis=1)
    return Load(node.name, tuple(tuple(int(c) for c in image) for image in counts))


def _attention(node: Node, over: Callable[[str], Ints]) -> Attention:
    p = node.params
    assert isinstance(p, AttentionParams)
    q, k = (over(name) for name in node.inputs[:2])
    effective, largest = [], []
    for h in range(p.num_heads):
        columns = slice(h * p.head_dim, (h + 1) * p.head_dim)
        for a, b in zip(q[:, :, columns], k[:, :, columns], strict=True):
            t = f.requantize(f.matmul(a, b, np.zeros(1, dtype=np.int64)), p.score)
            share = f.probability(t.max(axis=-1, keepdims=True) - t).astype(np.float64)
            share /= share.sum(axis=-1, keepdims=True)
            entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(axis=-1)
            effective.append(float(np.exp(entropy).mean()))
            largest.append(float(share.max(axis=-1).mean()))
    return Attention(node.name, k.shape[1], float(np.mean(effective)), float(np.mean(largest)))


def _stream(spec: TensorSpec, values: Ints) -> Stream:
    channels = np.abs(values).max(axis=(0, 1)) * spec.scale
    return Stream(spec.name, float(channels.max()), float(np.median(channels)))
