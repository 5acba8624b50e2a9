# SPDX-License-Identifier: Apache-2.0
"""Matryoshka slices: the same graph with its int8 experts cut to their first bit planes."""

from __future__ import annotations

from dataclasses import replace

from codesign.errors import InputError
from codesign.spec import INT8, ExpertsParams, Graph, Node


def slice_experts(graph: Graph, bits: int) -> Graph:
    """`graph` with every expert sliced to `bits` (2 or 4) of its 8 planes (`ExpertsParams.slices`).

    Raises InputError when its experts do not rest as int8, or it has none.
    """
    nodes = tuple(_sliced(graph, node, bits) for node in graph.nodes)
    if nodes == graph.nodes:
        raise InputError(f"model {graph.name} must have experts to slice, and it has none; generate without slices")
    return replace(graph, nodes=nodes)


def _sliced(graph: Graph, node: Node, bits: int) -> Node:
    if not isinstance(node.params, ExpertsParams):
        return node
    weights = graph.spec_of(node.inputs[3])
    if weights.type != INT8:
        raise InputError(f"experts must be int8 to be sliced to {bits} bits, not {weights.type}; export int8 experts")
    return replace(node, params=replace(node.params, slices=(bits,) * weights.shape[0]))
