# SPDX-License-Identifier: Apache-2.0
"""Small edits of ONNX models, for tests that break or rewrite one thing."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper


def node_of(model: ModelProto, op_type: str, index: int = 0) -> NodeProto:
    """The node of that type with that index."""
    return [n for n in model.graph.node if n.op_type == op_type][index]


def producer(model: ModelProto, tensor: str) -> NodeProto:
    """The node that computes a tensor."""
    return next(n for n in model.graph.node if tensor in n.output)


def value_of(model: ModelProto, name: str) -> np.ndarray:
    """A copy of an initializer."""
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)).copy()


def set_value(model: ModelProto, name: str, value: np.ndarray) -> str:
    """Replace or add an initializer; what the file said about its shape goes."""
    for values in (model.graph.value_info, model.graph.input):
        spare = [v for v in values if v.name != name]
        del values[:]
        values.extend(spare)
    kept = [t for t in model.graph.initializer if t.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, numpy_helper.from_array(np.asarray(value), name)])
    return name


def private_input(model: ModelProto, node: NodeProto, position: int, value: np.ndarray) -> None:
    """Give one node its own initializer for an input that it shares with others."""
    node.input[position] = set_value(model, f"{node.name}.private{position}", np.asarray(value, dtype=np.float32))


def set_attribute(node: NodeProto, name: str, value: object) -> None:
    """Replace or add an attribute."""
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def insert_before(model: ModelProto, node: NodeProto, *new: NodeProto) -> None:
    """Insert nodes in front of a node, keeping the order sorted."""
    nodes = list(model.graph.node)
    at = nodes.index(node)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in (*nodes[:at], *new, *nodes[at:])]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def replace_node(model: ModelProto, node: NodeProto, *new: NodeProto) -> None:
    """Put nodes in a node's place."""
    insert_before(model, node, *new)
    model.graph.node.remove(next(n for n in model.graph.node if n == node))


def feed_through(model: ModelProto, node: NodeProto, position: int, op_type: str, **attributes: object) -> NodeProto:
    """Put a one-input node of the default domain between a node and one of its inputs; returns it."""
    output = f"{node.name}.{op_type}"
    new = helper.make_node(op_type, [node.input[position]], [output], name=output, **attributes)
    original = onnx.NodeProto.FromString(node.SerializeToString())
    insert_before(model, node, new)
    next(n for n in model.graph.node if n == original).input[position] = output
    return new
