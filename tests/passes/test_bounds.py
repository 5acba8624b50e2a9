# SPDX-License-Identifier: Apache-2.0
"""Bounds hold for every input, and are reached: no bit is given away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.passes import accumulator_bits, graph_bounds
from codesign.passes.bounds import Interval
from codesign.reference import run_graph
from codesign.spec import INT8, INT16, INT32, Constant, Graph, Node, OpKind, Requant, TensorSpec
from codesign.spec.ops import LinearParams
from tests.graphs import GraphShape, random_graph, random_input

SHAPES = (
    GraphShape(),
    GraphShape(ternary=False, depth=3, heads=3),
    GraphShape(tokens=3, dim=8, head_dim=4, hidden=5, experts=8, top_k=3),
)


def extreme_input(rng: np.random.Generator, graph: Graph) -> np.ndarray:
    return rng.choice(np.array([-128, 127]), graph.input.shape)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from(SHAPES), extreme=st.booleans())
def test_every_tensor_stays_inside(seed: int, shape: GraphShape, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, shape)
    values = run_graph(graph, (extreme_input if extreme else random_input)(rng, graph))
    for node, bounds in zip(graph.nodes, graph_bounds(graph), strict=True):
        found = values[node.output.name]
        assert bounds.output.low <= found.min(), node.name
        assert found.max() <= bounds.output.high, node.name
        assert bounds.output.low >= node.output.type.min
        assert bounds.output.high <= node.output.type.max


def one_layer(weight: np.ndarray, bias: np.ndarray) -> Graph:
    base = random_graph(np.random.default_rng(0), GraphShape(patch=1, channels=weight.shape[1]))
    constants = (
        Constant(TensorSpec("w", weight.shape, INT8, 1.0), weight),
        Constant(TensorSpec("b", bias.shape, INT32, 1.0), bias),
    )
    requant = Requant.of_scale(1e-3, INT16)
    out = TensorSpec("y", (base.input.shape[0], len(bias)), INT16, 1.0)
    node = Node("y", OpKind.LINEAR, ("image", "w", "b"), out, LinearParams(requant))
    return Graph("layer", base.image, base.input, constants, (node,), ())


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), inputs=st.integers(1, 12), outputs=st.integers(1, 4))
def test_accumulator_is_exactly_the_worst_case(seed: int, inputs: int, outputs: int) -> None:
    """The interval equals the extreme over all inputs and all orders of summation, found by brute force."""
    rng = np.random.default_rng(seed)
    weight, bias = rng.integers(-128, 128, (outputs, inputs)), rng.integers(-(10**5), 10**5, outputs)
    (bounds,) = graph_bounds(one_layer(weight, bias))
    top = np.where(weight > 0, 127 * weight, -128 * weight).sum(axis=1)
    low = np.where(weight > 0, -128 * weight, 127 * weight).sum(axis=1)
    assert bounds.accumulator == Interval(
        int(min((low + bias).min(), low.min())), int(max((top + bias).max(), top.max()))
    )
    assert bounds.accumulator_bits == max(
        int(v).bit_length() + 1 if v >= 0 else int(-v - 1).bit_length() + 1
        for v in (bounds.accumulator.low, bounds.accumulator.high)
    )


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(0, 0, 1), (-1, 0, 1), (0, 1, 2), (-2, 1, 2), (-128, 127, 8), (-129, 0, 9), (0, 128, 9)]
)
def test_bits(low: int, high: int, bits: int) -> None:
    assert Interval(low, high).bits == bits


def test_partial_sums_count() -> None:
    """+w and -w cancel at the end but not in between."""
    weight = np.array([[100] * 8 + [-100] * 8])
    graph = one_layer(weight, np.array([0]))
    assert graph_bounds(graph)[0].accumulator == Interval(-100 * 8 * (128 + 127), 100 * 8 * (127 + 128))


def test_accumulator_bits_is_the_widest() -> None:
    graph = random_graph(np.random.default_rng(3))
    assert accumulator_bits(graph) == max(b.accumulator_bits for b in graph_bounds(graph))
    assert 12 <= accumulator_bits(graph) <= 24


def test_too_wide_is_refused() -> None:
    graph = one_layer(np.full((1, 4), 127), np.array([2**31 - 1]))
    with pytest.raises(InputError, match=r"accumulator of node y must fit 32 bits, not reach .*; use fewer inputs, .*"):
        graph_bounds(graph)


def test_a_computed_weight_is_refused() -> None:
    graph = one_layer(np.ones((1, 4), dtype=np.int64), np.array([0]))
    node = replace(graph.nodes[0], inputs=("image", "image", "b"))
    with pytest.raises(InputError, match="weights, biases, gains must be constants"):
        graph_bounds(replace(graph, nodes=(node,)))
