# SPDX-License-Identifier: Apache-2.0
"""Every contract that `verify` holds, broken once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.passes import verify
from codesign.passes.verify import MAX_NORM_DIM
from codesign.spec import INT8, INT16, Constant, Graph, IntType, Node, OpKind, Requant, TensorSpec
from tests.graphs import GraphShape, random_graph

GRAPH = random_graph(np.random.default_rng(0))


def change(kind: OpKind, edit: Callable[[Node], Node]) -> Graph:
    """The graph with its first node of a kind changed."""
    at = next(i for i, n in enumerate(GRAPH.nodes) if n.kind is kind)
    return replace(GRAPH, nodes=(*GRAPH.nodes[:at], edit(GRAPH.nodes[at]), *GRAPH.nodes[at + 1 :]))


def params(**fields: object) -> Callable[[Node], Node]:
    return lambda n: replace(n, params=replace(n.params, **fields))


def output(**fields: object) -> Callable[[Node], Node]:
    return lambda n: replace(n, output=replace(n.output, **fields))


def inputs(*positions: int) -> Callable[[Node], Node]:
    return lambda n: replace(n, inputs=tuple(n.inputs[i] for i in positions))


def other(name: str, position: int) -> Callable[[Node], Node]:
    return lambda n: replace(n, inputs=(*n.inputs[:position], name, *n.inputs[position + 1 :]))


SHORT = Requant((1 << 15,) * 3, (16,) * 3, INT8)

CASES = [
    (OpKind.LINEAR, inputs(0, 1), "node embed.patch must have 3 inputs, not 2; .*"),
    (OpKind.LINEAR, inputs(0, 2, 2), r"tensor embed\.patch\.bias of node embed\.patch must have shape \(16, 48\), .*"),
    (
        OpKind.LINEAR, output(shape=(8, 17)),
        r"tensor embed\.patch\.weight .* must have shape \(17, 48\), not \(16, 48\); .*",
    ),
    (
        OpKind.LINEAR, output(shape=(9, 16)),
        r"tensor embed\.patch of node embed\.patch must have shape \(8, 16\), not .*",
    ),
    (OpKind.LINEAR, output(type=INT8), "tensor embed.patch of node embed.patch must be int16, not int8; .*"),
    (OpKind.LINEAR, params(requant=SHORT), "node embed.patch must rescale 1 or 16 channels, not 3; .*"),
    (
        OpKind.LINEAR,
        params(requant=Requant((1,), (1,), IntType(4))),
        "node embed.patch must rescale to int8 or int16, not int4; .*",
    ),
    (OpKind.ADD, params(row_offset=9), r"row_offset of node embed\.add must be in 0\.\.8, not 9; .*"),
    (
        OpKind.ADD, params(row_offset=0),
        r"tensor embed\.patch of node embed\.add must have shape \(9, 16\), not \(8, 16\); .*",
    ),
    (OpKind.NORM, params(shift=0), r"shift of node block0\.norm1 must be in 1\.\.62, not 0; .*"),
    (
        OpKind.NORM, other("embed.patch.bias", 1),
        r"tensor embed\.patch\.bias of node block0\.norm1 must be int16, not int32; .*",
    ),
    (OpKind.NORM, output(type=INT16), r"tensor block0\.norm1 of node block0\.norm1 must be int8, not int16; .*"),
    (
        OpKind.ATTENTION, params(num_heads=3),
        r"tensor block0\.q of node block0\.attention must have shape \(9, 24\), .*",
    ),
    (OpKind.ATTENTION, params(out=SHORT), r"node block0\.attention must rescale 1 or 1 channels, not 3; .*"),
    (OpKind.GELU, other("block0.norm1", 0), r"tensor block0\.norm1 of node block0\.gelu must be int16, not int8; .*"),
    (OpKind.ROUTE, params(top_k=5), r"top_k of node semseg\.block1\.router must be in 1\.\.4, not 5; .*"),
    (OpKind.ROUTE, output(type=INT16), r"tensor semseg\.block1\.router .* must be uint16, not int16; .*"),
    (OpKind.EXPERTS, params(fc1=()), r"node semseg\.block1\.experts must have 4 rescalings a layer, not 0; .*"),
    (OpKind.EXPERTS, other("block0.gelu", 0), r"tensor .* of node semseg\.block1\.experts must have shape .*"),
    (
        OpKind.EXPERTS, other("block1.norm2", 2),
        r"tensor block1\.norm2 of node semseg\.block1\.experts must be int16, .*",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "edit", "message"), CASES)
def test_broken_node(kind: OpKind, edit: Callable[[Node], Node], message: str) -> None:
    with pytest.raises(InputError) as caught:
        verify(change(kind, edit))
    assert re.fullmatch(message, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    "shape", [GraphShape(), GraphShape(ternary=False, depth=3), GraphShape(tasks=("depth",), classes=(1,), tokens=5)]
)
def test_random_graphs_are_valid(shape: GraphShape) -> None:
    verify(random_graph(np.random.default_rng(1), shape))


def test_image_and_task_shapes() -> None:
    with pytest.raises(
        InputError, match=r"tensor image of the graph's image must have shape \(8, 48\), not \(8, 47\); .*"
    ):
        verify(replace(GRAPH, input=replace(GRAPH.input, shape=(8, 47))))
    with pytest.raises(InputError, match=r"tensor semseg of task semseg must have shape \(9, 20\), not \(9, 12\); .*"):
        verify(replace(GRAPH, outputs=(replace(GRAPH.outputs[0], classes=5),)))


def test_node_names_are_distinct() -> None:
    with pytest.raises(InputError, match="nodes must have distinct names"):
        verify(change(OpKind.GELU, lambda n: replace(n, name="embed.patch")))


def test_norm_is_not_too_wide() -> None:
    """sqrt(1024) would not fit the five integer bits of a normalised value."""
    dim = MAX_NORM_DIM + 1

    def constant(name: str, bits: int) -> Constant:
        return Constant(TensorSpec(name, (dim,), IntType(bits), 1.0), np.zeros(dim, dtype=np.int64))

    norm = next(n for n in GRAPH.nodes if n.kind is OpKind.NORM)
    wide = Constant(TensorSpec("wide", (2, dim), INT16, 1.0), np.zeros((2, dim), dtype=np.int64))
    node = Node("n", OpKind.NORM, ("wide", "g", "b"), TensorSpec("n", (2, dim), INT8, 1.0), norm.params)
    graph = Graph("wide", GRAPH.image, GRAPH.input, (wide, constant("g", 16), constant("b", 32)), (node,), ())
    with pytest.raises(InputError, match="columns of node n must be at most 1023, not 1024; use a narrower model"):
        verify(graph)
