# SPDX-License-Identifier: Apache-2.0
"""The mixtures of experts of a graph as layers of a store, and what images make flow into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from codesign.errors import InputError
from codesign.experts.file.writer import ExpertRescaling
from codesign.reference import run_graph
from codesign.reference.functions import Ints
from codesign.spec import ExpertsParams, Graph, IntType, Node, OpKind, Requant, RouteParams
from codesign.spec.moe import Activation, ExpertFormat, MoeLayer
from codesign.spec.patches import Pixels, to_patches

TERNARY = IntType(2)
TERNARY_FORMATS = (ExpertFormat.TERNARY, ExpertFormat.TRITS)


@dataclass(frozen=True)
class Mixture:
    """The experts that one or several nodes (one a task) share. `nodes` are their names; `node` is the first."""

    layer: MoeLayer
    nodes: tuple[str, ...]
    node: Node

    @property
    def params(self) -> ExpertsParams:
        """The rescalings of the graph."""
        assert isinstance(self.node.params, ExpertsParams)
        return self.node.params


@dataclass(frozen=True)
class Samples:
    """What flows into a mixture: x int8 [T, D] and gates [T, E]."""

    x: Ints
    gates: Ints


@dataclass(frozen=True)
class Expert:
    """One expert of a graph in integers: weights [N, K], and the rescaling of each layer."""

    w1: Ints
    w2: Ints
    fc1: ExpertRescaling
    fc2: ExpertRescaling


def mixtures(graph: Graph) -> tuple[Mixture, ...]:
    """The mixtures of a graph, in its order. Nodes with the same constants and rescalings are one."""
    found: dict[tuple[object, ...], list[Node]] = {}
    for node in graph.nodes:
        if node.kind is OpKind.EXPERTS:
            found.setdefault((node.inputs[3:], node.params), []).append(node)
    top_k = {n.output.name: n.params.top_k for n in graph.nodes if isinstance(n.params, RouteParams)}
    made = []
    for nodes in found.values():
        first = nodes[0]
        assert isinstance(first.params, ExpertsParams)
        if first.params.slices:
            raise InputError(f"experts of {first.name} must be whole, not slices of them; pack the model's own graph")
        experts, hidden, dim = graph.spec_of(first.inputs[3]).shape
        alone = sum(first.inputs[3] == key[0][0] for key in found) == 1  # type: ignore[index]
        name = first.inputs[3].removesuffix(".w1") if alone else first.name
        k = max(top_k[node.inputs[1]] for node in nodes)
        layer = MoeLayer(name, dim, hidden, experts, k, Activation.GELU, first.params.gelu)
        made.append(Mixture(layer, tuple(node.name for node in nodes), first))
    if not made:
        raise InputError(f"model {graph.name} must have mixtures of experts to pack, and it has none; give another")
    return tuple(made)


def is_ternary(graph: Graph, mixture: Mixture) -> bool:
    """Whether its weights are -1, 0 and 1 by type."""
    return all(graph.spec_of(mixture.node.inputs[i]).type == TERNARY for i in (3, 5))


def expert_of(graph: Graph, mixture: Mixture, number: int) -> Expert:
    """An expert's integers in the graph."""
    w1, b1, w2, b2 = (graph.constant(name).values[number] for name in mixture.node.inputs[3:])
    params = mixture.params
    return Expert(w1, w2, rescaling_of(params.fc1[number], b1), rescaling_of(params.fc2[number], b2))


def rescaling_of(requant: Requant, bias: Ints) -> ExpertRescaling:
    """A layer's rescaling [1, N] in a graph's terms: a requantization of one pair counts for all rows."""
    pairs = (np.broadcast_to(np.array(values), bias.shape)[None] for values in (requant.multiplier, requant.shift))
    return ExpertRescaling(bias[None], *pairs)


def sample(
    graph: Graph, found: tuple[Mixture, ...], images: Pixels, progress: Callable[[int, int], None]
) -> tuple[list[Samples], ...]:
    """What each image of uint8 [n, height, width, channels] makes flow into each mixture: [mixture][image].

    `progress` is told images done, and how many there are.
    """
    samples: tuple[list[Samples], ...] = tuple([] for _ in found)
    nodes = {node.name: node for node in graph.nodes}
    for number, x in enumerate(to_patches(images, graph.image)):
        values = run_graph(graph, x)
        for mixture, kept in zip(found, samples, strict=True):
            inputs = [nodes[name].inputs for name in mixture.nodes]
            kept.append(
                Samples(np.concatenate([values[i[0]] for i in inputs]), np.concatenate([values[i[1]] for i in inputs]))
            )
        progress(number + 1, len(images))
    return samples


def joined(samples: list[Samples]) -> Samples:
    """The rows of several images, one under the other."""
    return Samples(np.concatenate([s.x for s in samples]), np.concatenate([s.gates for s in samples]))
